"""What went wrong in other engines' hand-off, one test each. Mismatched pods (KeyError instead of a refusal) are in
test_kv_port.py, the pages of a client that leaves during a transfer in test_handoff.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.pod_protocol import Cancel, Credits, Delta, PrefillPeer
from tandem_runtime.engine.loop import layers_per_frame
from tandem_runtime.transfer.channel import Channel
from tandem_runtime.transfer.identity import KvSettings
from tandem_runtime.transfer.limits import HandoffLimits
from tandem_runtime.transfer.pace import LinkPace

from tests.runtime.server.pods import FAST, router, running_pod, submit, until
from tests.runtime.transfer.test_kv_port import ask, connected

QUICK = KvSettings(limits=HandoffLimits(ready_seconds=0.5, first_page_seconds=0.5, stuck_seconds=0.5))
PROMPT = "the quick brown fox jumps over the lazy dog " * 20


def slow(page_seconds: float) -> LinkPace:
    return LinkPace(0.0, FAST.kv_bytes_per_token * 32 / page_seconds, 64.0)


async def test_pages_that_the_prefill_pod_gave_to_another_prompt_are_never_sent_for_the_first_one() -> None:
    """Stale references after the sender reused its blocks: another prompt's answer, with status 200."""
    few = msgspec.structs.replace(FAST, kv_tokens=256)
    async with running_pod("prefill", coefficients=few) as prefill, connected(prefill) as decode:
        decode.channel.send(ask(list(range(100)), attempt=1))
        decode.channel.send(kv.Grant("r", 1, [(1, 1), (2, 1), (3, 1), (4, 1)]))
        await decode.next(kv.Commit)
        decode.channel.send(kv.Ack("r", 1))
        decode.channel.send(ask([7] * 200, attempt=2))  # takes the pages over
        await decode.next(kv.Ready)
        sent = prefill.pod.sent.tx_frames
        decode.channel.send(kv.Nack("r", 1, [1, 2, 3, 4]))
        decode.channel.send(kv.Grant("r", 1, [(1, 1)]))
        decode.channel.send(kv.Ping("d1", 0, 0))
        await decode.next(kv.Pong)
        assert prefill.pod.sent.tx_frames == sent
        decode.channel.send(kv.Abort("r", 2))
        await prefill.idle()


async def test_pages_that_went_to_another_request_are_not_touched_by_the_frames_of_the_first_one() -> None:
    """Receiver's blocks freed while the sender still writes: another request's KV is corrupt."""
    few = msgspec.structs.replace(FAST, kv_tokens=1024)
    async with (
        running_pod("prefill", pace=slow(0.02)) as prefill,
        running_pod("decode", coefficients=few) as decode,
        router(decode.internal_port) as client,
    ):
        alone = (await client.answer(submit("alone", "b" * 700, 8)))[0]
        client.send(submit("a", "a" * 800, 8, prefill.peer))
        await until(lambda: decode.pod.received.rx_frames >= 3)
        client.send(Cancel("a", 0))
        ids, _, last = await client.answer(submit("b", "b" * 700, 8, prefill.peer))
        assert ids == alone
        assert last.usage is not None
        assert last.usage.prefilled_here == 0 or last.usage.cached_tokens > 0
        await decode.idle()
        await prefill.idle()


async def test_a_prefill_pod_that_says_ready_and_then_nothing_holds_no_pages_of_the_receiver() -> None:
    """Waiting for remote KV for ever; blocks of an aborted receive never reclaimed."""
    async with running_pod("prefill") as model, running_pod("decode", kv_settings=QUICK) as decode:

        async def say_ready(channel: Channel) -> None:
            channel.send(msgspec.structs.replace(model.pod.sender.identity.hello, features=[]))
            try:
                while True:
                    message = await channel.receive()
                    if isinstance(message, kv.Prefill):
                        channel.send(kv.Ready(message.req, message.attempt, -(-len(message.tokens) // 32)))
                    elif isinstance(message, kv.Ping):
                        channel.send(kv.Pong("x", 0, 0))
            except EOFError:
                channel.close()

        said: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()

        def opened(channel: Channel) -> None:
            said.append(loop.create_task(say_ready(channel)))

        server = await loop.create_server(lambda: Channel(opened), "127.0.0.1", 0)
        async with server, router(decode.internal_port) as client:
            peer = PrefillPeer("mute", "127.0.0.1", server.sockets[0].getsockname()[1], "")
            _, _, last = await client.answer(submit("a", PROMPT, 8, peer))
            assert last.usage is not None
            assert last.usage.prefilled_here == len(PROMPT)
            assert decode.pod.receiver.fallbacks == {"stalled": 1}
            client.send(submit("b", PROMPT[::-1], 8, peer))
            await until(lambda: decode.pod.receiver.transfers == 1)
            client.send(Cancel("b", 0))
            await decode.idle()


@pytest.mark.parametrize("grants", [0, 2, 4])
async def test_a_decode_pod_that_lives_but_does_not_go_on_strands_no_pages_of_the_prefill_pod(grants: int) -> None:
    """The client left between the end of prefill and the admission at the receiver: blocks kept for minutes."""
    async with running_pod("prefill", kv_settings=QUICK) as prefill, connected(prefill) as decode:
        decode.channel.send(ask(list(range(100))))
        await decode.next(kv.Ready)
        if grants:
            decode.channel.send(kv.Grant("r", 1, [(number, 1) for number in range(grants)]))
        if grants == 4:
            await decode.next(kv.Commit)
        for _ in range(4):
            decode.channel.send(kv.Ping("d1", 0, 0))
            await decode.next(kv.Pong)
        abort = await decode.next(kv.Abort)
        assert "for 0.5 s" in abort.reason
        assert prefill.pod.sent.expired == 1
        await prefill.idle()


async def test_requests_whose_kv_was_transferred_do_not_deadlock_and_are_never_pulled_twice() -> None:
    """All blocks held by transferred requests that need one more each; re-pull of a transfer that was consumed."""
    few = msgspec.structs.replace(FAST, kv_tokens=512)
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode", coefficients=few, headroom_tokens=0, free_page_share=0.0) as decode,
        router(decode.internal_port) as client,
    ):
        prompts = [f"{number:02d} {'x' * 92}" for number in range(12)]
        answers = await asyncio.gather(
            *(client.answer(submit(f"r{n}", prompt, 70, prefill.peer)) for n, prompt in enumerate(prompts))
        )
        assert all(len(ids) == 70 for ids, _, _ in answers)
        assert decode.pod.engine.engine.scheduler.counters.preempted > 0
        assert prefill.pod.engine.engine.scheduler.counters.added == len(prompts)
        await decode.idle()
        await prefill.idle()


async def test_messages_with_a_wrong_id_free_nothing_and_leak_nothing() -> None:
    """A notification with the wrong id: the sender's blocks are never freed."""
    async with running_pod("prefill", kv_settings=QUICK) as prefill, connected(prefill) as decode:
        decode.channel.send(ask(list(range(100))))
        decode.channel.send(kv.Grant("r", 1, [(1, 1), (2, 1), (3, 1), (4, 1)]))
        await decode.next(kv.Commit)
        for wrong in (kv.Ack("r", 2), kv.Ack("q", 1), kv.Abort("q", 1), kv.Nack("q", 1, [1]), kv.Grant("q", 1, [])):
            decode.channel.send(wrong)
        decode.channel.send(kv.Ping("d1", 0, 0))
        await decode.next(kv.Pong)
        assert prefill.pod.sender.transfers == 1
        await decode.next(kv.Abort)  # the deadline of COMMIT without ACK
        await prefill.idle()


async def test_computed_pages_are_held_until_they_are_acknowledged_however_full_the_pod_is() -> None:
    """Eviction before an asynchronous send: silent deadlock, or somebody else's bytes."""
    few = msgspec.structs.replace(FAST, kv_tokens=256)
    async with running_pod("prefill", coefficients=few) as prefill, connected(prefill) as decode:
        decode.channel.send(ask([5] * 200, attempt=1))
        await decode.next(kv.Ready)
        await until(lambda: prefill.pod.engine.engine.state.used_pages == 7)
        decode.channel.send(ask([6] * 200, attempt=2))  # finds no room until the first one is through
        await decode.next(kv.Ready)
        decode.channel.send(kv.Grant("r", 1, [(number, 1) for number in range(7)]))
        for _ in range(7):
            frame = await decode.next(kv.Frame)
            payload = await decode.channel.payload()
            assert frame.attempt == 1
            assert payload[20:24] == (5).to_bytes(4, "little"), "tokens of the first prompt"
        await decode.next(kv.Commit)
        decode.channel.send(kv.Ack("r", 1))
        decode.channel.send(kv.Grant("r", 2, [(number, 2) for number in range(7)]))
        commit = await decode.next(kv.Commit)
        assert (commit.attempt, commit.frames_sent) == (2, 7)
        decode.channel.send(kv.Ack("r", 2))
        await prefill.idle()


def test_a_page_is_one_frame_and_not_thousands_of_descriptors() -> None:
    """112,000 tiny descriptors in one transfer; pull at 0.5 GB/s where push had 49: pages are pushed, whole."""
    assert layers_per_frame(24, 24 * 2 * 2 * 32 * 64 * 2) == 24
    assert layers_per_frame(32, 32 * 2 * 8 * 32 * 128 * 2) == 32
    assert layers_per_frame(80, 80 << 20) == 16, "beyond 16 MiB in groups of layers"


@pytest.mark.parametrize("cause", ["dead", "busy"])
@pytest.mark.parametrize("shared", [False, True])
async def test_a_second_prefill_pod_is_asked_before_the_prompt_is_computed_here(
    cause: str, shared: bool, tmp_path: Path
) -> None:
    folder = KvSettings(shared_memory=tmp_path if shared else None)
    async with (
        running_pod("prefill", "p0", kv_settings=folder, pace=slow(0.02)) as first,
        running_pod("prefill", "p1", kv_settings=folder) as second,
        running_pod(
            "decode", kv_settings=replace(folder, peers=tuple(f"127.0.0.1:{p.pod.kv_port}" for p in (first, second)))
        ) as decode,
        router(decode.internal_port) as client,
    ):
        decode.pod.preflight.start()
        await until(lambda: len(decode.pod.receiver.links.connected) == 2 and decode.pod.ready)
        await client.heard(Credits, lambda lease: lease.slots > 0)
        if cause == "busy":
            first.pod.sender.draining = True
        client.send(submit("a", PROMPT, 12, first.peer))
        if cause == "dead":
            await until(lambda: first.pod.sent.tx_frames >= 2)
            first.pod.sender.stop()
        last = await client.ended("a")
        assert isinstance(last, Delta), last
        assert last.usage is not None
        assert last.usage.prefilled_here == 0
        assert decode.pod.receiver.retries == {"peer_lost" if cause == "dead" else "busy": 1}
        assert decode.pod.receiver.fallbacks == {}
        assert second.pod.sent.completed == 1
        ids = [token for delta in client.of("a") for token in delta.ids]  # type: ignore[union-attr]
        assert ids == (await client.answer(submit("b", PROMPT, 12)))[0]
        await decode.idle()
        await first.idle()
        await second.idle()
