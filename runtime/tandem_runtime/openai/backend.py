"""The seam below the front: the router's queue and proxy, or the engine in the same process (`both`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit

Sink = Callable[[Delta | Failed], None]
"""Gets what comes for one request, on the event loop; must neither block nor raise nor call the backend."""


class Backend(Protocol):
    """Used on the event loop that runs the front."""

    @property
    def max_context_tokens(self) -> int | None:
        """Prompt and output together; None while nobody knows yet (then the pod refuses what is too long)."""

    def submit(self, request: Submit, sink: Sink) -> None:
        """Deltas in order, without gap or repetition, from within this call on; the last event has a finish_reason or
        is a Failed. `cancel` must be called in the end, whatever the end was."""

    def cancel(self, request_id: str) -> None:
        """Nobody reads the answer any more, or it is complete: no event follows. Idempotent, also for unknown ids."""
