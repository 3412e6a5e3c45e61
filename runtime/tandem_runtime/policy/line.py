"""One line of requests in the law's order: open streams, what can still be saved (its largest stepping back when not
all of it can), what is late; and the aging rule.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from tandem_runtime.policy.bands import SLACK_ITEMS, Band, Item
from tandem_runtime.policy.waiting import QueueLaw, Waiting

Rank = tuple[int, int]
"""Smaller goes first."""
STREAMING: Final[Rank] = (0, 0)
SALVAGEABLE: Final = 1
"""First part of the rank; the second is minus the priority."""
SET_BACK: Final[Rank] = (2, 0)
LATE: Final[Rank] = (3, 0)
MAX_GONE: Final = 1024
MAX_CREDIT_TOKENS: Final = 32_768.0
"""Turns that aged work can save up; it must not take the fleet in one go after an hour without any."""


@dataclass(slots=True)
class InTime:
    """What one class of one priority has that can still be saved."""

    requests: int = 0
    tokens: int = 0
    latest: float = 0.0
    """When the one with the most time left becomes late."""
    largest: list[tuple[int, int]] = field(default_factory=list)
    """Minus tokens, and number; those that left are in it too."""

    def add(self, entry: Waiting, number: int) -> None:
        """One more."""
        self.requests += 1
        self.tokens += entry.tokens
        self.latest = max(self.latest, entry.late_at)
        heappush(self.largest, (-entry.tokens, number))


@dataclass(frozen=True, slots=True)
class Foremost:
    """Who goes next, and by which key."""

    rank: Rank
    item: Item
    entry: Waiting

    def goes_before(self, other: Foremost) -> bool:
        """By its key."""
        return self.rank < other.rank or (self.rank == other.rank and self.item < other.item)


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
        self._in_time: dict[tuple[Rank, str], InTime] = {}
        self._credit = 0.0

    def __len__(self) -> int:
        return len(self._where)

    def add(self, entry: Waiting, number: int, now: float) -> None:
        """`number` must be new and grow."""
        late_at = entry.late_at - self._law.late_margin_seconds
        if entry.streaming:
            rank = STREAMING
        elif self._law.order == "fifo":
            rank = (SALVAGEABLE, 0)
        elif late_at <= now:
            rank = LATE
        else:
            rank = (SALVAGEABLE, -entry.priority)
            if late_at < inf:
                self._turns = without_gone(self._turns, self._where)
                heappush(self._turns, (late_at, number))
        self._put(rank, entry, number)

    def discard(self, number: int) -> None:
        """Idempotent."""
        place = self._where.pop(number, None)
        if place is not None:
            self._leave(place[0], place[1], number)

    def first(self, now: float, tokens_per_second: float | None = None) -> Foremost | None:
        """Who goes next; stays inside. `tokens_per_second`: what the fleet takes, None when nobody knows."""
        self._turn_late(now)
        if self._law.sets_back and self._law.order == "deadline" and tokens_per_second is not None:
            self._set_back(now, tokens_per_second)
        if self._credit > 0:
            aged = self._oldest_late(now)
            if aged is not None:
                return Foremost(STREAMING, (aged[0], aged[0], aged[1]), self._where[aged[1]][1])
        for rank in self._ranks:
            found = self._bands[rank].first()
            if found is not None:
                return Foremost(rank, found[0], found[1])
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

    def sets_back(self) -> bool:
        """Someone had to step back and can still be saved."""
        band = self._bands.get(SET_BACK)
        return band is not None and len(band) > 0

    def rank(self, number: int) -> Rank:
        """Where it stands."""
        return self._where[number][0]

    def charge(self, rank: Rank, entry: Waiting) -> None:
        """One of the same tenant was sent off from another line."""
        band = self._bands.get(rank)
        if band is not None:
            band.charge(entry.tenant, entry.tokens)

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
                self._leave(place[0], place[1], number)
                self._put(LATE, place[1], number)

    def _set_back(self, now: float, tokens_per_second: float) -> None:
        """Moore and Hodgson's rule: while what waits takes longer than it has, the largest goes.

        Each class by itself, behind all of higher priority: classes of one priority take turns by deadline anyway.
        """
        ahead_tokens = at_rank_tokens = 0
        last: Rank = STREAMING
        for (rank, _), in_time in self._in_time.items():
            if rank != last:
                ahead_tokens, at_rank_tokens, last = ahead_tokens + at_rank_tokens, 0, rank
            limit_tokens = tokens_per_second * max(0.0, in_time.latest - self._law.late_margin_seconds - now)
            while in_time.tokens and ahead_tokens + in_time.tokens > limit_tokens:
                _, number = heappop(in_time.largest)
                place = self._where.get(number)
                if place is not None and place[0] == rank:
                    self._leave(rank, place[1], number)
                    self._put(SET_BACK, place[1], number)
            at_rank_tokens += in_time.tokens

    def _leave(self, rank: Rank, entry: Waiting, number: int) -> None:
        self._bands[rank].discard(number)
        if rank[0] == SALVAGEABLE and entry.late_at < inf:
            in_time = self._in_time[rank, entry.request_class]
            in_time.tokens -= entry.tokens
            in_time.requests -= 1
            if len(in_time.largest) > 2 * in_time.requests + SLACK_ITEMS:
                there = self._bands[rank]
                in_time.largest = [item for item in dict.fromkeys(in_time.largest) if item[1] in there]
                heapify(in_time.largest)

    def _put(self, rank: Rank, entry: Waiting, number: int) -> None:
        band = self._bands.get(rank)
        if band is None:
            fair = self._law.order == "deadline"
            band = self._bands[rank] = Band(self._law.tenant_burst_tokens if fair else inf)
            insort(self._ranks, rank)
        if rank[0] == SALVAGEABLE and entry.late_at < inf:
            in_time = self._in_time.get((rank, entry.request_class))
            if in_time is None:
                in_time = self._in_time[rank, entry.request_class] = InTime()
                self._in_time = dict(sorted(self._in_time.items(), key=lambda item: item[0]))
            in_time.add(entry, number)
        if rank == LATE:
            band.add((-entry.priority, entry.objective_at, number), entry)
            self._aging = without_gone(self._aging, self._where)
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


def without_gone(heap: list[tuple[float, int]], there: Mapping[int, object]) -> list[tuple[float, int]]:
    """The heap itself, made anew once most of it has left: those that left are else only found at the top."""
    if len(heap) <= 2 * len(there) + MAX_GONE:
        return heap
    left = [item for item in dict.fromkeys(heap) if item[1] in there]
    heapify(left)
    return left
