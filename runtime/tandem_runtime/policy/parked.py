"""Requests that no pod has room for, in lines by how much they need: what fits into freed room is found without a
look at all of them, however many thousands wait while the KV of the fleet is full.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import log2
from typing import Final, NamedTuple

from tandem_runtime.policy.bands import Item
from tandem_runtime.policy.line import Line, Rank
from tandem_runtime.policy.waiting import QueueLaw, Waiting

LINES_PER_OCTAVE: Final = 4
"""Needs within 19 % of each other share a line; 60 lines reach from 32 tokens to a million."""
WOKEN_AT_ONCE: Final = 4
"""For one request that leaves: a second and third one, should a pod refuse the first for another reason."""
SLACK_ITEMS: Final = 64


class Parked(NamedTuple):
    """One of them."""

    entry: Waiting
    number: int
    need_tokens: int


class SizeLine:
    """Those of about the same size, in the law's order, and by their exact size."""

    def __init__(self, law: QueueLaw) -> None:
        self.line = Line(law)
        self.live: dict[int, Parked] = {}
        self.tokens = 0
        self._sizes: list[tuple[int, int]] = []

    def add(self, parked: Parked, now: float) -> None:
        """One more."""
        self.live[parked.number] = parked
        self.tokens += parked.entry.tokens
        self.line.add(parked.entry, parked.number, now)
        if len(self._sizes) > 2 * len(self.live) + SLACK_ITEMS:
            self._sizes = [(each.need_tokens, number) for number, each in self.live.items()]
            heapify(self._sizes)
        else:
            heappush(self._sizes, (parked.need_tokens, parked.number))

    def take(self, number: int) -> None:
        """It leaves."""
        self.tokens -= self.live.pop(number).entry.tokens
        self.line.discard(number)

    def first(self, room_tokens: float, now: float, rate: float | None) -> tuple[Rank, Item, Parked] | None:
        """Who goes next of those that fit: the first in line, else the smallest."""
        found = self.line.first(now, rate)
        if found is None:
            return None
        rank, item = found.rank, found.item
        parked = self.live[item[2]]
        if parked.need_tokens <= room_tokens:
            return rank, item, parked
        while (size := self._sizes[0]) and (size[1] not in self.live or self.live[size[1]].need_tokens != size[0]):
            heappop(self._sizes)
        return (rank, item, self.live[size[1]]) if size[0] <= room_tokens else None


class ParkedRequests:
    """Entries are known by their number."""

    def __init__(self, law: QueueLaw) -> None:
        self._law = law
        self._lines: dict[int, SizeLine] = {}
        self._where: dict[int, int] = {}
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._where)

    def add(self, entry: Waiting, number: int, need_tokens: int, now: float) -> None:
        """It needs so many tokens of KV at one pod."""
        size = int(LINES_PER_OCTAVE * log2(max(1, need_tokens)))
        line = self._lines.get(size)
        if line is None:
            self._lines[size] = line = SizeLine(self._law)
        line.add(Parked(entry, number, need_tokens), now)
        self._where[number] = size
        self._tokens += entry.tokens

    def discard(self, number: int) -> None:
        """Idempotent."""
        size = self._where.pop(number, None)
        if size is None:
            return
        line = self._lines[size]
        self._tokens -= line.live[number].entry.tokens
        line.take(number)
        if not line.live:
            del self._lines[size]

    def fitting(self, room_tokens: float, now: float, tokens_per_second: float | None) -> list[Parked]:
        """Who should be looked at now: the first few that fit, each of another size, and the smallest of all."""
        found: list[tuple[Rank, Item, Parked]] = []
        smallest: Parked | None = None
        for size in sorted(self._lines):
            if 2 ** (size / LINES_PER_OCTAVE) > room_tokens + 1:
                break
            line = self._lines[size]
            # Each line by itself sets back what cannot be served in time; it gets its share of the fleet.
            rate = None if tokens_per_second is None else tokens_per_second * line.tokens / max(1, self._tokens)
            candidate = line.first(room_tokens, now, rate)
            if candidate is not None:
                smallest = smallest or candidate[2]
                found.append(candidate)
        found.sort(key=lambda candidate: (candidate[0], candidate[1]))
        chosen = [candidate[2] for candidate in found[:WOKEN_AT_ONCE]]
        return chosen if smallest is None or smallest in chosen else [*chosen, smallest]

    def charge(self, rank: Rank, entry: Waiting) -> None:
        """A tenant's request was sent off: its others step back here too."""
        for line in self._lines.values():
            line.line.charge(rank, entry)

    def take_turned(self, now: float) -> Iterator[Waiting]:
        """As of a line."""
        for line in self._lines.values():
            yield from line.line.take_turned(now)

    def next_turn(self) -> float:
        """As of a line; call it while there are some."""
        return min(line.line.next_turn() for line in self._lines.values())
