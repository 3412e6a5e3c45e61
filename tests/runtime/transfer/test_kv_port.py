"""Garbage, strangers and odd requests on the kv port: the pod says what is wrong and serves on."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import MAX_CONTROL_BYTES, MAX_HELLO_BYTES, pack
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.transfer.channel import Channel

from tests.runtime.server.pods import RunningPod, router, running_pod, submit


@dataclass
class DecodePod:
    """The decode side of a connection, by hand."""

    channel: Channel
    hello: kv.Hello

    async def next(self, *kinds: type[Any]) -> Any:
        """The next message of one of these kinds."""
        async with asyncio.timeout(10):
            while True:
                message = await self.channel.receive()
                if isinstance(message, kinds):
                    return message


@asynccontextmanager
async def connected(prefill: RunningPod, **changes: Any) -> AsyncIterator[DecodePod]:
    channel = await Channel.connect("127.0.0.1", prefill.pod.kv_port)
    own = msgspec.structs.replace(prefill.pod.sender.identity.hello, role="decode", incarnation="d1", **changes)
    channel.send(own)
    try:
        yield DecodePod(channel, own)
    finally:
        channel.close()


def ask(tokens: list[int], attempt: int = 1, **more: Any) -> kv.Prefill:
    return kv.Prefill("r", attempt, tokens, Sampling(4), 0, more.pop("remaining_ms", 60_000), **more)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 64,
        struct.pack("!II", MAX_CONTROL_BYTES + 1, 0),
        struct.pack("!II", 3, 0) + b"abc",
        struct.pack("!II", 5, 1 << 31),
        pack(kv.encode(kv.Ping("x", 0, 0))),
        pack(kv.encode(kv.Ping("x", 0, 0)), 8) + b"12345678",
        pack(msgspec.msgpack.encode({"type": "HELLO", "proto": "one"})),
        b"\x00\x00",
    ],
)
async def test_garbage_closes_its_connection_and_harms_nobody(garbage: bytes) -> None:
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        for greeting in (b"", pack(kv.encode(prefill.pod.sender.identity.hello))):
            reader, writer = await asyncio.open_connection("127.0.0.1", prefill.pod.kv_port)
            writer.write(greeting + garbage)
            writer.write_eof()
            with suppress(ConnectionResetError):  # so it ends when not all of it was read
                async with asyncio.timeout(10):
                    await reader.read()
            writer.close()
        _, _, last = await client.answer(submit("a", "hello world " * 9, 4, prefill.peer))
        assert last.usage is not None
        assert last.usage.prefilled_here == 0
        await prefill.idle()


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_stranger_cannot_make_a_pod_hold_a_large_message(role: str) -> None:
    async with running_pod(role) as running:
        for port in (running.pod.kv_port, running.internal_port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(struct.pack("!II", MAX_HELLO_BYTES + 1, 0))
            async with asyncio.timeout(2):  # at once, not after the time for a hello
                assert await reader.read() == b""
            writer.close()


async def test_whoever_does_not_know_the_token_is_told_so_and_nothing_else() -> None:
    async with running_pod("prefill") as prefill, connected(prefill, token="guess") as stranger:
        rejected = await stranger.next(kv.Reject, kv.Hello)
        assert isinstance(rejected, kv.Reject)
        assert "wrong token" in rejected.reason
        with pytest.raises(EOFError):
            await stranger.next(kv.Hello)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compat_hash": "other"}, "compat hashes differ"),
        ({"proto": 9}, "protocol 9"),
        ({"layout": kv.Layout(2, 2, 64, 32, "emulated", 1)}, "page layout"),
        ({"layout": kv.Layout(2, 2, 64, 32, "bfloat16", 1)}, "--kv-dtype"),
        ({"tp": 2}, "tensor parallelism 2"),
    ],
)
async def test_a_pod_that_does_not_match_is_rejected_with_the_reason(changes: dict[str, Any], words: str) -> None:
    async with running_pod("prefill") as prefill, connected(prefill, **changes) as other:
        rejected = await other.next(kv.Reject, kv.Hello)
        assert isinstance(rejected, kv.Reject)
        assert words in rejected.reason
        assert rejected.own_compat_hash == prefill.pod.engine.capacity.compat_hash
        assert rejected.peer_compat_hash == other.hello.compat_hash


async def test_nothing_is_sent_before_it_is_granted_and_frames_name_what_was_granted() -> None:
    async with running_pod("prefill") as prefill, connected(prefill) as decode:
        await decode.next(kv.Hello)
        decode.channel.send(ask(list(range(100))))
        ready = await decode.next(kv.Ready)
        assert ready.n_pages == 4
        decode.channel.send(kv.Grant("r", 1, [(50, 7)]))
        frame = await decode.next(kv.Frame, kv.Commit)
        assert (frame.page, frame.generation, frame.incarnation, frame.attempt) == (50, 7, "d1", 1)
        await decode.channel.discard()
        assert prefill.pod.sent.tx_frames == 1
        decode.channel.send(kv.Grant("r", 1, [(51, 7), (52, 7), (53, 7)]))
        commit = await decode.next(kv.Commit)
        assert (commit.n_tokens, commit.frames_sent) == (100, 4)
        decode.channel.send(kv.Ack("r", 1))
        decode.channel.send(kv.Ack("r", 1))
        await prefill.idle()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ask([1, 2, 999_999]), "999999"),
        (ask([1] * 16_384), "context"),
        (ask([]), "not possible"),
        (ask([1, 2, 3], prompt_tokens=9), "not possible"),
        (ask([1, 2, 3], remaining_ms=0), "time was up"),
    ],
)
async def test_what_cannot_be_computed_is_answered_with_the_reason(request_: kv.Prefill, words: str) -> None:
    async with running_pod("prefill") as prefill, connected(prefill) as decode:
        decode.channel.send(request_)
        abort = await decode.next(kv.Abort)
        assert words in abort.reason
        await prefill.idle()


async def test_a_full_prefill_pod_says_busy() -> None:
    async with running_pod("prefill", waiting_tokens=50) as prefill, connected(prefill) as decode:
        decode.channel.send(ask(list(range(100))))
        busy = await decode.next(kv.Busy)
        assert (busy.req, busy.attempt) == ("r", 1)
        await prefill.idle()


async def test_pages_that_nobody_grants_or_acknowledges_are_freed_at_the_deadline() -> None:
    async with running_pod("prefill") as prefill, connected(prefill) as decode:
        decode.channel.send(ask(list(range(100)), remaining_ms=400))
        await decode.next(kv.Ready)
        await decode.next(kv.Abort)
        await prefill.idle()


async def test_an_aborted_attempt_is_over_and_the_next_one_is_another_story() -> None:
    async with running_pod("prefill") as prefill, connected(prefill) as decode:
        decode.channel.send(ask(list(range(100)), attempt=1))
        decode.channel.send(kv.Abort("r", 1))
        decode.channel.send(kv.Abort("nobody", 1))
        decode.channel.send(ask(list(range(64)), attempt=2))
        await decode.next(kv.Hello)
        decode.channel.send(kv.Grant("r", 2, [(1, 1), (2, 1)]))
        commit = await decode.next(kv.Commit)
        assert (commit.attempt, commit.frames_sent) == (2, 2)
        decode.channel.send(kv.Ack("r", 2))
        await prefill.idle()


async def test_a_peer_that_falls_silent_loses_its_pages() -> None:
    async with running_pod("prefill") as prefill, connected(prefill) as decode:
        decode.channel.send(ask(list(range(100))))
        await decode.next(kv.Ready)
        await prefill.idle()
        assert not prefill.pod.sender.connections
