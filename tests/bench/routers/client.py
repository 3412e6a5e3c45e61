"""Streams as clients open them: at the time that they are due, whatever became of the others, never one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final

import msgspec
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
    complete: bool
    reason: str


@dataclass(slots=True)
class Window:
    """What went on between its edges, at steady load; `failed` are those that ended otherwise than they should."""

    answers: list[Answered]
    tokens: int = 0
    cpu_seconds: float = 0.0


class TaggedLoad(Load):
    """Says its number in each prompt, so that the pod's own times can be found."""

    def __init__(self, port: int, numbers: Iterator[int]) -> None:
        super().__init__(Target("127.0.0.1", port, MODEL, timeout_seconds=120.0), self._take, Random(0))
        self.sent: list[tuple[int, Exchange]] = []
        self._numbers = numbers
        self._tokens = 0

    @property
    def tokens(self) -> int:
        """That came so far."""
        return self._tokens + sum(connection._events for connection in self._busy)

    def _take(self, exchange: Exchange) -> None:
        self._tokens += exchange.output_tokens

    def _send(self, exchange: Exchange) -> None:
        self._number = next(self._numbers)
        self.sent.append((self._number, exchange))
        super()._send(exchange)

    def encode(self, due: Due) -> bytes:
        """The whole HTTP request."""
        body = msgspec.json.encode(
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": f"<<{self._number}>> Tell me about the sea."}],
                "max_tokens": due.output_tokens,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self.target.host}:{self.target.port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def answers(self) -> list[Answered]:
        """Of all that were sent; call it when nothing is under way any more."""
        return [_answered(number, exchange) for number, exchange in self.sent]


def _loads(ports: list[int], first_number: int) -> list[TaggedLoad]:
    return [TaggedLoad(port, count(first_number + index, len(ports))) for index, port in enumerate(ports)]


async def drive_all(ports: list[int], schedule: list[Due], first_number: int) -> list[Answered]:
    """Sends it all to ports on loopback, in turns, and waits for every answer."""
    loads = _loads(ports, first_number)
    await asyncio.gather(*[load.run(schedule[index :: len(ports)]) for index, load in enumerate(loads)])
    return [answer for load in loads for answer in load.answers()]


async def drive_window(
    ports: list[int], schedule: list[Due], first_number: int, seconds: float, read_cpu: Callable[[], float]
) -> Window:
    """Looks at `seconds` of steady load; what is under way at their end is broken off, and counts for TTFT only."""
    loads = _loads(ports, first_number)
    runs = [asyncio.create_task(load.run(schedule[index :: len(ports)])) for index, load in enumerate(loads)]
    await asyncio.sleep(SETTLED_SECONDS)
    tokens, cpu = sum(load.tokens for load in loads), read_cpu()
    await asyncio.sleep(seconds)
    window = Window([], sum(load.tokens for load in loads) - tokens, read_cpu() - cpu)
    window.answers = [answer for load in loads for answer in load.answers()]
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)
    for load in loads:
        load.close()
    return window


def _answered(number: int, exchange: Exchange) -> Answered:
    under_way = exchange.ended_at == 0.0
    complete = under_way or (exchange.complete and exchange.status == 200)
    counts = complete and exchange.first_at is not None and exchange.due.at >= SETTLED_SECONDS
    ttft_seconds = exchange.first_at - exchange.sent_at if counts and exchange.first_at is not None else None
    return Answered(number, ttft_seconds, complete, exchange.reason)
