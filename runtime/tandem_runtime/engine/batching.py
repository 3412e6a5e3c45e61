"""When requests may join the batch: at every step, or only together once the batch before is done. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf


class Batching(StrEnum):
    """Continuous is how this engine serves; the other two are there to be compared with it."""

    CONTINUOUS = "continuous"
    """A request joins as soon as there is room."""
    DYNAMIC = "dynamic"
    """As many as came within a short wait, at most a batch; nobody joins until all of them are done."""
    STATIC = "static"
    """The same, but for whole batches: the wait is long, and ends early only when the batch is full."""


@dataclass(slots=True)
class BatchGate:
    """`size` requests make a whole batch; an incomplete one starts when its oldest has waited `wait_seconds`."""

    batching: Batching
    size: int
    wait_seconds: float
    joining: int = 0
    """How many of the batch that is forming have still to join."""

    def opens(self, now: float, running: int, waiting: int, oldest_since: float) -> bool:
        """Whether the next waiting request may join now."""
        if self.batching is Batching.CONTINUOUS or self.joining > 0:
            return True
        if running or not waiting or (waiting < self.size and now < oldest_since + self.wait_seconds):
            return False
        self.joining = min(self.size, waiting)
        return True

    def joined(self) -> None:
        """One did."""
        self.joining = max(0, self.joining - 1)

    def returned(self) -> None:
        """One of the batch lost its pages and joins again."""
        if self.batching is not Batching.CONTINUOUS:
            self.joining += 1

    def none_waits(self) -> None:
        """Whoever is still missing from the batch will not come."""
        self.joining = 0

    def opens_at(self, running: int, waiting: int, oldest_since: float) -> float:
        """When to look again if nothing else happens; infinite when only an event can change it."""
        if self.batching is Batching.CONTINUOUS or self.joining or running or not waiting:
            return inf
        return oldest_since + self.wait_seconds
