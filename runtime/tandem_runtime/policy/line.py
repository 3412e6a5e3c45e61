"""One line of requests in the law's order: open streams, what can still be saved, what is late; and the aging rule."""

from __future__ import annotations

from bisect import insort
from heapq import heappop, heappush
from math import inf
from typing import Final

from tandem_runtime.policy.bands import Band, Item
from tandem_runtime.policy.waiting import QueueLaw, Waiting

Rank = tuple[int, int]
"""Smaller goes first."""
STREAMING: Final[Rank] = (0, 0)
LATE: Final[Rank] = (2, 0)
MAX_CREDIT_TOKENS: Final = 32_768.0
"""Turns that aged work can save up; it must not take the fleet in one go after an hour without any."""


class Line:
    """Entries are known by the number that `add` was given."""

    def __init__(self, law: QueueLaw) -> None:
        self._law = law
        self._bands: dict[Rank, Band] = {}
        self._ranks: list[Rank] = []
        self._where: dict[int, tuple[Rank, Waiting]] = {}
        self._turns: list[tuple[float, int]] = []
        self._aging: list[tuple[float, int]] = []
        self._turned: list[int] = []
        self._credit = 0.0

    def __len__(self) -> int:
        return len(self._where)

    def add(self, entry: Waiting, number: int, now: float) -> None:
        """`number` must be new and grow."""
        late_at = entry.late_at - self._law.late_margin_seconds
        if entry.streaming:
            rank = STREAMING
        elif self._law.order == "fifo":
            rank = (1, 0)
        elif late_at <= now:
            rank = LATE
        else:
            rank = (1, -entry.priority)
            if late_at < inf:
                heappush(self._turns, (late_at, number))
        self._put(rank, entry, number)

    def discard(self, number: int) -> None:
        """Idempotent."""
        place = self._where.pop(number, None)
        if place is not None:
            self._bands[place[0]].discard(number)

    def first(self, now: float) -> tuple[Rank, Item, Waiting] | None:
        """Who goes next; stays inside."""
        self._turn_late(now)
        if self._credit > 0:
            aged = self._oldest_late(now)
            if aged is not None:
                return STREAMING, (aged[0], aged[0], aged[1]), self._where[aged[1]][1]
        for rank in self._ranks:
            found = self._bands[rank].first()
            if found is not None:
                return rank, found[0], found[1]
        return None

    def dispatched(self, number: int) -> None:
        """Takes it out and counts its tokens to its tenant and to the share of late work."""
        rank, entry = self._where[number]
        late = self._bands.get(LATE)
        contended = late is not None and 0 < len(late) < len(self._where)
        self.discard(number)
        self._bands[rank].charge(entry.tenant, entry.tokens)
        if contended:  # both kinds waited
            share = self._law.late_share - (1.0 if rank == LATE else 0.0)
            self._credit = min(self._credit + entry.tokens * share, MAX_CREDIT_TOKENS)

    def next_turn(self) -> float:
        """When the next request becomes late."""
        while self._turns and self._turns[0][1] not in self._where:
            heappop(self._turns)
        return self._turns[0][0] if self._turns else inf

    def take_turned(self, now: float) -> list[Waiting]:
        """Those that became late since the last call and still wait; under a law that sheds them."""
        self._turn_late(now)
        turned, self._turned = self._turned, []
        return [self._where[number][1] for number in turned if number in self._where]

    def _turn_late(self, now: float) -> None:
        while self._turns and self._turns[0][0] <= now:
            _, number = heappop(self._turns)
            place = self._where.get(number)
            if place is not None and place[0] != LATE:
                self._bands[place[0]].discard(number)
                self._put(LATE, place[1], number)

    def _put(self, rank: Rank, entry: Waiting, number: int) -> None:
        band = self._bands.get(rank)
        if band is None:
            fair = self._law.order == "deadline"
            band = self._bands[rank] = Band(self._law.tenant_burst_tokens if fair else inf)
            insort(self._ranks, rank)
        if rank == LATE:
            band.add((-entry.priority, entry.objective_at, number), entry)
            heappush(self._aging, (entry.arrived, number))
            if self._law.sheds_late:
                self._turned.append(number)
        elif self._law.order == "fifo" or rank == STREAMING:
            band.add((entry.arrived, 0.0, number), entry)
        else:
            band.add((entry.objective_at, entry.arrived, number), entry)
        self._where[number] = (rank, entry)

    def _oldest_late(self, now: float) -> tuple[float, int] | None:
        while self._aging and self._aging[0][1] not in self._where:
            heappop(self._aging)
        if self._aging and now - self._aging[0][0] >= self._law.late_patience_seconds:
            return self._aging[0]
        return None
