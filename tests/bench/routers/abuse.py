"""Clients that do it wrong, all at once, for as long as they are let."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from random import Random

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
STREAM = b'{"model":"chat","prompt":"hello","max_tokens":2000,"stream":true}'
KINDS = ("flood_headers", "trickle", "stay_half_open", "make_noise", "read_slowly", "flood_requests")
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"


class Abuse:
    """`start`, then `stop`; `ended` counts how connections of each kind were ended by the server."""

    def __init__(self, port: int) -> None:
        self.ended: Counter[str] = Counter()
        self.idle: list[asyncio.StreamWriter] = []
        self._port = port
        self._tasks: list[asyncio.Task[None]] = []

    async def open_idle(self, count: int, at_once: int = 200) -> None:
        """Connections that say nothing and stay."""
        for start in range(0, count, at_once):
            openings = [self._open() for _ in range(min(at_once, count - start))]
            self.idle += [writer for _, writer in await asyncio.gather(*openings)]

    def start(self, each: int, kinds: Sequence[str] = KINDS) -> None:
        """So many connections of each kind."""
        doings = [getattr(self, f"_{kind}") for kind in kinds]
        self._tasks = [asyncio.create_task(self._repeat(doing)) for doing in doings for _ in range(each)]

    async def stop(self) -> None:
        """Ends all of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self.idle:
            writer.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _repeat(self, kind: object) -> None:
        while True:
            reader, writer = await self._open()
            try:
                await kind(reader, writer)  # type: ignore[operator]
            except OSError:
                pass
            finally:
                writer.transport.abort()
            self.ended[kind.__name__.strip("_")] += 1  # type: ignore[attr-defined]
            await asyncio.sleep(0.5)

    async def _flood_headers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\n" + (b"x: " + b"a" * 4000 + b"\r\n") * 60)
        await _until_end(reader)

    async def _trickle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 1000000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b" ")
            await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await reader.read(1000)

    async def _stay_half_open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await _until_end(reader)

    async def _make_noise(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(Random().randbytes(2000))
        await _until_end(reader)

    async def _read_slowly(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(STREAM), STREAM))
        while await reader.read(20):
            await asyncio.sleep(0.5)

    async def _flood_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(200):
            writer.write(MODELS * 100)
            await writer.drain()
            await asyncio.sleep(0.1)


async def _until_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass
