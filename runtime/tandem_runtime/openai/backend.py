"""The seam below the front: the router's queue and proxy, or the engine in the same process (`both`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit


class Backend(Protocol):
    """Used on the event loop that runs the front."""

    @property
    def max_context_tokens(self) -> int | None:
        """Prompt and output together; None while nobody knows yet (then the pod refuses what is too long)."""

    def submit(self, request: Submit) -> AsyncIterator[Delta | Failed]:
        """Deltas in order, without gap or repetition; the last item has a finish_reason or is a Failed."""

    def cancel(self, request_id: str) -> None:
        """Nobody reads the answer any more. Idempotent; an unknown id is ignored."""
