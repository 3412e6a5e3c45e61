"""Sends every request at the moment it is due, whatever became of the ones before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec

from tandem_runtime.bench.schedule import Due
from tandem_runtime.bench.stream import LOST, Connection, Exchange
from tandem_runtime.contracts.names import HEADER_CLASS, HEADER_TIMEOUT_MS

TOKEN_IDS: Final = (16, 200)
"""Prompts are ids from here to there: every vocabulary has them, and none ends a text."""
CONNECT_SECONDS: Final = 10.0
GRACE_SECONDS: Final = 1.0
"""After the timeout, for the server to say so itself."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes."""

    host: str
    port: int
    model: str
    path: str = "/v1/completions"
    headers: dict[str, str] = field(default_factory=dict)
    timeout_seconds: float = 600.0


class Load:
    """`ended` gets every request once, in the order of their ends."""

    def __init__(self, target: Target, ended: Callable[[Exchange], None], random: Random) -> None:
        self.target = target
        self.open = 0
        """Requests under way."""
        self.most_open = 0
        self._ended = ended
        self._random = random
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._clock = time.monotonic  # the loop's own is of milliseconds, and of the last turn
        self._quiet = asyncio.Event()

    async def run(self, schedule: Iterable[Due]) -> float:
        """Returns the seconds from the first due time to the end of the last request, at most its timeout later."""
        start = self._clock() + 0.1
        for due in schedule:
            pause = start + due.at - self._clock()
            if pause > 0:
                await asyncio.sleep(pause)
            self._send(Exchange(due, start + due.at))
        if self.open:
            self._quiet.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.target.timeout_seconds + GRACE_SECONDS):
                    await self._quiet.wait()
        self.close()
        return self._clock() - start

    def close(self) -> None:
        """What is under way has failed."""
        for task in list(self._opening):
            task.cancel()
        for connection in [*self._busy, *self._idle]:
            connection.close("no answer in time")

    def _send(self, exchange: Exchange) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        request = self.encode(exchange.due)
        while self._idle:
            connection = self._idle.pop()
            if connection.free:
                self._busy.add(connection)
                connection.send(request, exchange)
                return
        task = self._loop.create_task(self._open(request, exchange))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, request: bytes, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._clock, self._finished), self.target.host, self.target.port
                )
        except (OSError, TimeoutError) as error:
            exchange.status, exchange.reason = LOST, f"cannot connect: {type(error).__name__}"
            exchange.ended_at = self._clock()
            self._count(exchange)
            return
        self._busy.add(connection)
        connection.send(request, exchange)

    def _finished(self, connection: Connection, exchange: Exchange) -> None:
        self._busy.discard(connection)
        if connection.free:
            self._idle.append(connection)
        else:
            connection.close()
        self._count(exchange)

    def _count(self, exchange: Exchange) -> None:
        self.open -= 1
        self._ended(exchange)
        if not self.open:
            self._quiet.set()

    def encode(self, due: Due) -> bytes:
        """The whole HTTP request."""
        target = self.target
        body = msgspec.json.encode(
            {
                "model": target.model,
                "prompt": self._random.choices(range(*TOKEN_IDS), k=due.prompt_tokens),
                "max_tokens": due.output_tokens,
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        headers = {
            "Host": f"{target.host}:{target.port}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            HEADER_TIMEOUT_MS: str(int(1000 * target.timeout_seconds)),
            **({HEADER_CLASS: due.request_class} if due.request_class else {}),
            **target.headers,
        }
        lines = [f"POST {target.path} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()], "", ""]
        return "\r\n".join(lines).encode() + body
