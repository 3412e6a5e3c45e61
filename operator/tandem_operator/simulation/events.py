"""Virtual time: callbacks in order of time, ties in order of scheduling."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Events:
    """The clock of a run. What is scheduled is not taken back: who may change his mind checks when called."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[Any, ...]] = []
        """Time, order, whom to call, with what."""
        self._order = 0

    def at(self, when: float, call: Callable[[Any], None], argument: Any = None) -> None:
        """Never before `now`."""
        self._order += 1
        heappush(self._heap, (when if when > self.now else self.now, self._order, call, argument))

    def run_until(self, end: float) -> None:
        """Everything up to and including `end`, at which the clock then stands."""
        heap = self._heap
        while heap:
            event = heappop(heap)
            if event[0] > end:
                heappush(heap, event)
                break
            self.now = event[0]
            event[2](event[3])
        self.now = end
