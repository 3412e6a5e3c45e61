"""What clients do wrong with connections costs little and harms nobody else: idle, slow, endless, malformed ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import msgspec
import pytest
from tandem_runtime.openai.http_port import PortLimits

from tests.runtime.openai.local import LocalFront, ScriptedBackend, running_front
from tests.runtime.router.harness import eventually

BODY = msgspec.json.encode({"model": "chat", "prompt": "hi", "stream": True})
STREAM = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
WAIT_SECONDS = 20.0

Raw = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def raw(local: LocalFront, said: bytes = b"") -> AsyncIterator[Raw]:
    """A connection that said something."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(local.url.rpartition(":")[2]))
    writer.write(said)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All up to the end, or to where it broke off."""
    parts = []
    async with asyncio.timeout(WAIT_SECONDS):
        try:
            while part := await reader.read(1 << 16):
                parts.append(part)
        except ConnectionError:
            pass
    return b"".join(parts)


async def still_serves(local: LocalFront) -> bool:
    """A well-behaved client gets its answer."""
    async with raw(local, STREAM) as (reader, _):
        async with asyncio.timeout(WAIT_SECONDS):
            return (await reader.readuntil(END)).startswith(b"HTTP/1.1 200")


async def test_idle_connections_stay_and_streams_beside_them_complete() -> None:
    async with running_front() as local, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(raw(local)) for _ in range(300)]
        active = [await stack.enter_async_context(raw(local, STREAM)) for _ in range(50)]
        async with asyncio.timeout(WAIT_SECONDS):
            answers = await asyncio.gather(*[reader.readuntil(END) for reader, _ in active])
        assert all(answer.count(b'"text":') >= 3 for answer in answers)
        assert local.port.counts.open == 350
        idle[-1][1].write(STREAM)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await idle[-1][0].readuntil(END)


async def test_who_does_not_read_is_cut_off_visibly_and_the_others_are_unharmed() -> None:
    backend = ScriptedBackend(words=["x" * 1000] * 20_000, steps=True)
    async with running_front(backend) as local, raw(local, STREAM) as (reader, _):
        await eventually(lambda: bool(local.records), WAIT_SECONDS)
        assert (local.records[0].status, local.records[0].reason) == (499, "slow_reader")
        backend.words = ["a", "b"]
        assert await still_serves(local)
        answer = await rest(reader)
        assert b"[DONE]" not in answer
        assert not answer.endswith(b"0\r\n\r\n"), "it cannot look complete"
        assert len(answer) < 15_000_000, "what is kept for it is bounded"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /" + b"a" * 20_000, b"400"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 20_000, b"400"),
        (b"GET / HTTP/1.1\r\n" + b"x: a\r\n" * 500, b"400"),
        (b"GET / HTTP/1.1\r\n" + (b"x: " + b"a" * 4000 + b"\r\n") * 40, b"431"),
    ],
)
async def test_a_flood_of_headers_is_refused_and_the_connection_closed(said: bytes, status: bytes) -> None:
    async with running_front() as local, raw(local, said) as (reader, _):
        assert (await rest(reader)).split(b" ")[1] == status
        await eventually(lambda: local.port.counts.open == 0)
        assert await still_serves(local)


@pytest.mark.parametrize("said", [b"", b"POST /v1/comp", b"GET /health HTTP/1.1\r\nHost: a\r\nx: "])
async def test_who_never_finishes_a_head_is_let_go(said: bytes) -> None:
    async with running_front(limits=PortLimits(idle_seconds=0.2)) as local, raw(local, said) as (reader, _):
        assert await rest(reader) == b""


async def test_connections_beyond_the_limit_are_closed_at_once_and_those_within_are_served() -> None:
    async with running_front(limits=PortLimits(connections=5)) as local, AsyncExitStack() as stack:
        first = [await stack.enter_async_context(raw(local)) for _ in range(5)]
        await eventually(lambda: local.port.counts.open == 5)
        async with raw(local, STREAM) as (reader, _):
            assert await rest(reader) == b""
        assert local.port.counts.refused == 1
        first[0][1].write(STREAM)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await first[0][0].readuntil(END)
        first[1][1].transport.abort()
        await eventually(lambda: local.port.counts.open == 4)
        assert await still_serves(local)


async def test_bodies_that_trickle_grow_or_break_off_are_answered_and_hold_nothing() -> None:
    async with running_front(max_body_bytes=50_000, max_bodies_bytes=100_000, body_seconds=0.5) as local:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        async with raw(local, head + b"Content-Length: 40000\r\n\r\n{") as (reader, _):
            assert b" 408 " in await reader.readline()
        async with raw(local, chunked + (b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 10) as (reader, _):
            assert b" 413 " in await reader.readline()
        async with raw(local, chunked + b"not a number\r\n") as (reader, _):
            assert b" 400 " in await reader.readline()
        async with AsyncExitStack() as stack:
            large = head + b"Content-Length: 49999\r\n\r\n" + b" " * 40_000
            for _ in range(3):
                reader, _ = await stack.enter_async_context(raw(local, large))
            assert b" 503 " in await reader.readline()
        await eventually(lambda: local.front.in_flight == 0)
        assert local.front._bodies.held_bytes == 0
        assert await still_serves(local)


async def test_whatever_bytes_come_the_front_answers_or_closes_and_goes_on_serving() -> None:
    random = Random(5)
    async with running_front(limits=PortLimits(idle_seconds=0.3), body_seconds=0.3) as local:
        for _ in range(6):
            async with AsyncExitStack() as stack:
                seen = [await stack.enter_async_context(raw(local, mutated(random))) for _ in range(20)]
                for _, writer in seen[::2]:
                    writer.transport.abort()
                answers = await asyncio.gather(*[rest(reader) for reader, _ in seen[1::2]])
            assert not [answer[:60] for answer in answers if answer and not answer.startswith(b"HTTP/")]
        await eventually(lambda: local.front.in_flight == 0 and local.port.counts.open == 0, WAIT_SECONDS)
        assert all(record.status != 500 for record in local.records)
        assert await still_serves(local)


def mutated(random: Random) -> bytes:
    """A request with some bytes changed, cut, doubled or thrown in; or nothing but noise."""
    if random.random() < 0.2:
        return random.randbytes(random.randrange(1, 3000))
    data = bytearray(STREAM.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    for _ in range(random.randrange(1, 6)):
        start = random.randrange(len(data))
        end = min(len(data), start + random.randrange(1, 40))
        piece = bytes(data[start:end])
        data[start:end] = random.choice([b"", piece * 2, random.randbytes(8), b"\r\n", b"\x00", piece.upper()])
        data = data or bytearray(b" ")
    return bytes(data)


async def test_a_connection_with_thousands_of_requests_at_once_gives_the_others_their_turn() -> None:
    class Counting(ScriptedBackend):
        asked = 0

        def __getattribute__(self, name: str) -> object:
            if name == "max_context_tokens":  # once for each answer
                type(self).asked += 1
            return super().__getattribute__(name)

    backend = Counting()
    async with running_front(backend) as local, raw(local) as (_, greedy), raw(local) as (reader, modest):
        await eventually(lambda: local.port.counts.open == 2)
        greedy.write(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n" * 2000)
        await eventually(lambda: Counting.asked > 0)
        modest.write(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(WAIT_SECONDS):
            await reader.readuntil(b"}]}")
        assert Counting.asked < 1000
