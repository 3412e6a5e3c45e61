"""Whatever bytes come on the kv port or the internal port: no crash, no unbounded memory, others are served."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.framing import FrameError
from tandem_runtime.contracts.pod_protocol import PrefillPeer
from tandem_runtime.transfer.channel import Channel

from tests.runtime.server.pods import router, running_pod, submit
from tests.runtime.transfer.garbage import frame, hostile, kv_frames, nested, router_frames, spoil

SESSIONS = 40
BROKEN_NAME = frame(b"\x81\xa4type\xa5\x80ELLO")
"""Neither nesting nor a name that is not UTF-8 is a DecodeError: both once ended the task instead of the connection."""
BOUND_BYTES = 8 << 20
"""What parsing a few kilobytes of garbage may take at its peak."""


async def feed(channel: Channel, data: bytes) -> None:
    """As an event loop does, then the end."""
    while data:
        room = channel.get_buffer(-1)
        count = min(len(room), len(data))
        room[:count] = data[:count]
        if count:
            channel.buffer_updated(count)
        data = data[count:]
        await asyncio.sleep(0)
    channel.eof_received()


async def parse(data: bytes) -> int:
    """Messages read before the garbage ends it; raises what a connection does not expect."""
    channel = Channel()
    feeding = asyncio.create_task(feed(channel, data))
    count = 0
    try:
        while True:
            await channel.receive()
            count += 1
            if count % 2:
                await channel.payload()
    except (FrameError, EOFError):
        return count
    finally:
        feeding.cancel()


@given(st.randoms(use_true_random=False), st.binary(max_size=200))
@example(random.Random(1), frame(nested(200_000)))
@example(random.Random(1), frame(nested(5_000)))
@example(random.Random(1), BROKEN_NAME)
def test_the_parser_of_the_kv_port_knows_only_messages_and_errors(chance: random.Random, raw: bytes) -> None:
    for data in (raw, spoil(chance, kv_frames()), hostile(chance)):
        asyncio.run(parse(data))


def test_garbage_takes_no_more_memory_than_it_has_bytes() -> None:
    chance = random.Random(3)
    tracemalloc.start()
    try:
        for _ in range(60):
            asyncio.run(parse(hostile(chance)))
        assert tracemalloc.get_traced_memory()[1] < BOUND_BYTES
    finally:
        tracemalloc.stop()


@given(st.randoms(use_true_random=False), st.binary(max_size=200))
def test_the_decoder_of_the_internal_port_knows_only_messages_and_errors(chance: random.Random, raw: bytes) -> None:
    for data in (raw, spoil(chance, router_frames())[8:]):
        for decode in (wire.decode_from_router, wire.decode_from_pod):
            with suppress(FrameError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                decode(data)


async def throw(port: int, greeting: bytes, data: bytes) -> None:
    """One connection of a stranger, or of one who knows the token and then goes mad."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(greeting + data)
    writer.write_eof()
    try:
        async with asyncio.timeout(10):
            while await reader.read(1 << 16):
                pass
    except ConnectionError:
        pass
    writer.close()


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_pod_that_is_fuzzed_on_both_ports_serves_on_and_keeps_its_books(
    role: str, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(5)
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        target = prefill if role == "prefill" else decode
        hello = frame(msgspec.msgpack.encode(target.pod.sender.identity.hello))
        greeting = frame(wire.encode(wire.RouterHello(wire.VERSION, "r9", "i", "secret", "rev1")))
        for _ in range(SESSIONS):
            await throw(target.pod.kv_port, hello if chance.random() < 0.7 else b"", spoil(chance, kv_frames()))
            known = greeting if chance.random() < 0.7 else b""
            await throw(target.internal_port, known, spoil(chance, router_frames()))
        for known_bug in (frame(nested(200_000)), BROKEN_NAME):
            await throw(target.pod.kv_port, hello, known_bug)
            await throw(target.internal_port, greeting, known_bug)
        _, _, last = await client.answer(submit("after", "hello world " * 9, 4, prefill.peer))
        assert last.usage is not None
        assert last.usage.prefilled_here == 0
        await prefill.idle()
        await decode.idle()
    assert "Unhandled exception" not in caplog.text
    assert "never retrieved" not in caplog.text


async def test_a_prefill_pod_that_goes_mad_costs_its_requests_time_and_nothing_else() -> None:
    chance = random.Random(11)
    async with running_pod("prefill") as model, running_pod("decode") as decode:
        hello = frame(msgspec.msgpack.encode(model.pod.sender.identity.hello))

        async def rave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(hello + spoil(chance, kv_frames()))
            await asyncio.sleep(0.01)
            writer.close()

        server = await asyncio.start_server(rave, "127.0.0.1", 0)
        async with server, router(decode.internal_port) as client:
            peer = PrefillPeer("mad", "127.0.0.1", server.sockets[0].getsockname()[1], "")
            expected = (await client.answer(submit("alone", "hello world " * 9, 6)))[0]
            for number in range(20):
                ids, _, _ = await client.answer(submit(f"r{number}", "hello world " * 9, 6, peer))
                assert ids == expected
            await decode.idle()
