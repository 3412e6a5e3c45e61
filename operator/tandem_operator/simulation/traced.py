"""A trace as a workload: cut, and made heavier without making its bursts finer or its long prompts come in packs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random

from tandem_operator.simulation.traces import Row, Rows
from tandem_operator.simulation.workload import Request

JITTER_S = 5.0
"""Copies of a request come that much earlier or later: rates over 10 s keep the trace's shape."""
NEAR = 200
"""Lengths of a copy are those of a request so many rows away at most: lengths drift as in the trace."""
COPY_BLOCKS = 1 << 40
"""Prefix blocks of each copy of the trace are its own: reuse stays what it was."""


@dataclass(frozen=True, slots=True)
class Traced:
    """`scale`: times the rate. From `start_s` of the trace, which becomes 0, for `length_s` (0: to its end)."""

    trace: Rows
    scale: float = 1.0
    start_s: float = 0.0
    length_s: float = 0.0

    @property
    def block_tokens(self) -> int:
        """Length of one prefix block."""
        return self.trace.block_tokens

    @property
    def end_s(self) -> float:
        """No request comes after."""
        return self.length_s or self.trace.rows[-1].t_s - self.start_s

    def requests(self, seed: int) -> Iterator[Request]:
        """In order of arrival, from time 0. With scale 1 it is the trace itself, whatever the seed."""
        rows = [row for row in self.trace.rows if 0 <= row.t_s - self.start_s <= self.end_s]
        if self.scale == 1.0:
            for row in rows:
                yield Request(row.t_s - self.start_s, row.prompt_tokens, row.output_tokens, blocks=row.blocks)
            return
        yield from self._scaled(rows, Random(f"{seed} copies of a trace"))

    def _scaled(self, rows: Sequence[Row], random: Random) -> Iterator[Request]:
        waiting: list[tuple[float, int, Request]] = []
        made = 0
        for index, row in enumerate(rows):
            base_s = row.t_s - self.start_s
            while waiting and waiting[0][0] <= base_s - JITTER_S:
                yield heappop(waiting)[2]
            whole = int(self.scale)
            copies = whole + (random.random() < self.scale - whole)
            for copy in range(copies):
                at_s = min(self.end_s, max(0.0, base_s + random.uniform(-JITTER_S, JITTER_S)))
                made += 1
                heappush(waiting, (at_s, made, self._copy(rows, index, copy, at_s, random)))
        while waiting:
            yield heappop(waiting)[2]

    def _copy(self, rows: Sequence[Row], index: int, copy: int, at_s: float, random: Random) -> Request:
        if self.trace.block_tokens:
            row = rows[index]
            blocks = tuple(block + copy * COPY_BLOCKS for block in row.blocks)
            return Request(at_s, row.prompt_tokens, row.output_tokens, blocks=blocks)
        low, high = max(0, index - NEAR), min(len(rows) - 1, index + NEAR)
        row = rows[random.randint(low, high)]
        return Request(at_s, row.prompt_tokens, row.output_tokens)
