"""What became of the requests that were in a pod when it began to drain: completed there, migrated, or lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from tandem_runtime.contracts.signals import DrainSignals

Outcome = Literal["completed", "lost", "cancelled"]
Cause = Literal["order", "terminated", "flipped"]
MAX_RECORDS: Final = 64
"""Drains that /signals tells; what counts for ever is in the totals."""


@dataclass(eq=False)
class Drain:
    """Of one incarnation of a pod. `moved` ones may still be lost elsewhere."""

    pod: str
    role: str
    incarnation: str
    cause: Cause
    """order: POST /drain; terminated: the pod said that it is shutting down; flipped: that it takes another role."""
    started: float
    in_flight_at_start: int = 0
    completed: int = 0
    migrated: int = 0
    lost: int = 0
    cancelled: int = 0
    """Their clients left."""
    ended: float | None = None
    taken_back: bool = False
    running: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)

    def signals(self, now: float) -> DrainSignals:
        """As it stands now."""
        return DrainSignals(
            pod=self.pod,
            role=self.role,
            incarnation=self.incarnation,
            cause=self.cause,
            in_flight_at_start=self.in_flight_at_start,
            completed=self.completed,
            migrated=self.migrated,
            lost=self.lost,
            cancelled=self.cancelled,
            seconds=round((now if self.ended is None else self.ended) - self.started, 3),
            done=self.ended is not None,
        )


class Drains:
    """Told by the backend of what happens to requests; costs nothing while no pod drains."""

    def __init__(self) -> None:
        self.records: dict[str, Drain] = {}
        """By incarnation, the latest ones."""
        self.totals: Counter[str] = Counter({"completed": 0, "migrated": 0, "lost": 0, "cancelled": 0})
        """Of all drains; a request that moved and was lost after that is in both."""
        self.causes: Counter[str] = Counter()
        self._of_request: dict[str, list[Drain]] = {}

    def begin(
        self, pod: str, role: str, incarnation: str, cause: Cause, requests: Callable[[], Iterable[str]], now: float
    ) -> Drain:
        """Idempotent: an incarnation has one account, also when it is drained by order and terminated after that. Only
        an order that was taken back may be given again."""
        known = self.records.get(incarnation)
        if known is not None and not known.taken_back:
            return known
        self.records.pop(incarnation, None)
        drain = Drain(pod, role, incarnation, cause, now, running=set(requests()))
        drain.in_flight_at_start = len(drain.running)
        for request in drain.running:
            self._of_request.setdefault(request, []).append(drain)
        self.records[incarnation] = drain
        self.causes[cause] += 1
        while len(self.records) > MAX_RECORDS:
            self._drop(self.records.pop(next(iter(self.records))))
        self._check(drain, now)
        return drain

    def completed(self, request: str, incarnation: str, now: float) -> None:
        """The pod did its part: a prefill pod, whose work ends with the first token."""
        drain = self._running(request, incarnation)
        if drain is not None:
            self._count(drain, request, "completed", now)

    def moved(self, request: str, incarnation: str, now: float) -> None:
        """It goes on elsewhere."""
        drain = self._running(request, incarnation)
        if drain is not None:
            drain.moved.add(request)
            self._count(drain, request, "migrated", now)

    def ended(self, request: str, outcome: Outcome, now: float) -> None:
        """The client has its answer, or an error, or left."""
        for drain in self._of_request.pop(request, ()):
            if request in drain.running:
                self._count(drain, request, outcome, now)
            elif request in drain.moved:
                drain.moved.discard(request)
                if outcome == "lost":
                    drain.migrated -= 1
                    drain.lost += 1
                    self.totals["lost"] += 1

    def stop(self, incarnation: str, now: float) -> None:
        """The order was taken back: the pod goes on working."""
        drain = self.records.get(incarnation)
        if drain is not None:
            drain.taken_back = True
            drain.running.clear()
            self._check(drain, now)

    def _running(self, request: str, incarnation: str) -> Drain | None:
        drain = self.records.get(incarnation)
        return drain if drain is not None and request in drain.running else None

    def _count(self, drain: Drain, request: str, outcome: str, now: float) -> None:
        drain.running.discard(request)
        setattr(drain, outcome, getattr(drain, outcome) + 1)
        self.totals[outcome] += 1
        self._check(drain, now)

    def _check(self, drain: Drain, now: float) -> None:
        if not drain.running and drain.ended is None:
            drain.ended = now

    def _drop(self, drain: Drain) -> None:
        for request in drain.running | drain.moved:
            left = [other for other in self._of_request.pop(request, []) if other is not drain]
            if left:
                self._of_request[request] = left
