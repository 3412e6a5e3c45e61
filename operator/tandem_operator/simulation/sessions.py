"""Requests that share prefixes: a few system prompts for all, and conversations that grow turn by turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tandem_operator.simulation.arrivals import Rate, arrivals
from tandem_operator.simulation.lengths import Lengths
from tandem_operator.simulation.workload import Request

CANDIDATES = 3
"""Conversations of which the one goes on that fits the length best: a long prompt is seldom a first one."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """A request goes on with an earlier one's prompt with probability `continues`, else it is new."""

    rate: Rate
    lengths: Lengths
    end_s: float
    continues: float = 0.75
    remembered: int = 2000
    """Conversations that may still go on."""
    system_prompts: int = 4
    system_blocks: int = 2
    block_tokens: int = 512

    def requests(self, seed: int) -> Iterator[Request]:
        """In order of arrival, from time 0."""
        random = Random(f"{seed} sessions")
        open_blocks: list[tuple[int, ...]] = []
        names = self.system_prompts * self.system_blocks
        for t_s in arrivals(self.rate, self.end_s, Random(f"{seed} arrivals")):
            prompt_tokens, output_tokens = self.lengths.draw(random, t_s)
            count = -(-prompt_tokens // self.block_tokens)
            if open_blocks and random.random() < self.continues:
                found = max(
                    (random.choice(open_blocks) for _ in range(CANDIDATES)), key=lambda held: min(len(held), count)
                )
                shared = found[: max(0, count - 1)]
            else:
                system = random.randrange(self.system_prompts) * self.system_blocks
                shared = tuple(range(system, system + self.system_blocks))[:count]
            blocks = shared + tuple(range(names, names + count - len(shared)))
            names += count - len(shared)
            open_blocks.append(blocks)
            if len(open_blocks) > self.remembered:
                open_blocks[random.randrange(self.remembered)] = open_blocks.pop()
            yield Request(t_s, prompt_tokens, output_tokens, blocks=blocks)
