"""Streams as clients open them: at the time that they are due, whatever became of the others, never one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec
import uvloop
from tandem_runtime.bench.load import Load, Target
from tandem_runtime.bench.schedule import Due, poisson_or_gamma
from tandem_runtime.bench.stream import Exchange

from tests.bench.routers.fleet import MODEL

SETTLED_SECONDS: Final = 1.5
"""The first streams start together, in the middle of their answers; from then on requests count for TTFT."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`streams` are open on average, each with `tokens` at `tokens_per_second`; new ones come for `seconds`."""

    streams: int
    tokens: int
    tokens_per_second: float
    seconds: float

    def schedule(self, random: Random) -> list[Due]:
        """Steady from the first second on: those that would be open already come first, with what they have left."""
        rate = self.streams * self.tokens_per_second / self.tokens
        open_already = [Due(random.random(), 1, random.randint(1, self.tokens)) for _ in range(self.streams)]
        later = [Due(at, 1, self.tokens) for at in poisson_or_gamma(rate, 1.0, self.seconds, random)]
        return sorted(open_already + later, key=lambda due: due.at)


@dataclass(frozen=True, slots=True)
class Answered:
    """One request; TTFT is from the time when it was sent, None where it does not count."""

    number: int
    ttft_seconds: float | None
    tokens: int
    complete: bool
    reason: str


class TaggedLoad(Load):
    """Says its number in each prompt, so that the pod's own times can be found."""

    numbers: Iterator[int]

    def encode(self, due: Due) -> bytes:
        """The whole HTTP request."""
        body = msgspec.json.encode(
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": f"<<{next(self.numbers)}>> Tell me about the sea."}],
                "max_tokens": due.output_tokens,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self.target.host}:{self.target.port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


async def drive_all(ports: list[int], schedule: list[Due], first_number: int) -> list[Answered]:
    """Sends it all to ports on loopback, in turns; request i has the number `first_number` + i."""
    ended: list[Exchange] = []
    numbers: dict[int, int] = {}
    loads = []
    for index, port in enumerate(ports):
        load = TaggedLoad(Target("127.0.0.1", port, MODEL, timeout_seconds=120.0), ended.append, Random(0))
        share = schedule[index :: len(ports)]
        load.numbers = iter(range(first_number + index, first_number + len(schedule), len(ports)))
        numbers |= {id(due): first_number + index + len(ports) * place for place, due in enumerate(share)}
        loads.append(load.run(share))
    await asyncio.gather(*loads)
    return [_answered(numbers[id(exchange.due)], exchange) for exchange in ended]


def drive(ports: list[int], schedule: list[Due], first_number: int) -> list[Answered]:
    """The same, on a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(drive_all(ports, schedule, first_number))


def _answered(number: int, exchange: Exchange) -> Answered:
    complete = exchange.complete and exchange.status == 200
    counts = complete and exchange.first_at is not None and exchange.due.at >= SETTLED_SECONDS
    ttft_seconds = exchange.first_at - exchange.sent_at if counts and exchange.first_at is not None else None
    return Answered(number, ttft_seconds, exchange.output_tokens, complete, exchange.reason)
