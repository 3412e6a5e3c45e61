"""The seam below the front: the router's queue and proxy, or the engine in the same process (`both`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit

Sink = Callable[[Delta | Failed], None]
"""Gets what comes for one request, on the event loop; must neither block nor raise nor call the backend."""


@dataclass(frozen=True, slots=True)
class Lane:
    """How to write plain deltas of one answer past its sink: `before`, the text as JSON, `after`, as one chunk of
    HTTP/1.1. Holds until the backend says `took`, with the sink's next event or `cancel` at the latest."""

    socket: int
    """Descriptor; nothing is left to be written before."""
    before: bytes
    after: bytes
    took: Callable[[int, float, bytes], None]
    """Output tokens that went this way, monotonic seconds of the last one, bytes that the socket did not take."""


LaneSource = Callable[[], Lane | None]
"""None: not now."""


class Backend(Protocol):
    """Used on the event loop that runs the front."""

    @property
    def max_context_tokens(self) -> int | None:
        """Prompt and output together; None while nobody knows yet (then the pod refuses what is too long)."""

    def submit(self, request: Submit, sink: Sink, lane: LaneSource | None = None) -> None:
        """Deltas in order, without gap or repetition, from within this call on; the last event has a finish_reason or
        is a Failed. `cancel` must be called in the end, whatever the end was. A backend need not use `lane`."""

    def cancel(self, request_id: str) -> None:
        """Nobody reads the answer any more, or it is complete: no event follows. Idempotent, also for unknown ids."""
