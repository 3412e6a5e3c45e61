"""A prefill pod and a decode pod over loopback: what crosses, and what happens when something goes wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.pod_protocol import Cancel, Delta, Failed, PrefillPeer
from tandem_runtime.engine.emulated_executor import EmulatedExecutor
from tandem_runtime.engine.loop import UNTAKEN_BYTES
from tandem_runtime.transfer.channel import Channel
from tandem_runtime.transfer.identity import KvSettings
from tandem_runtime.transfer.pace import LinkPace

from tests.runtime.server import pods
from tests.runtime.server.pods import FAST, RunningPod, router, running_pod, submit, until

PROMPT = "the quick brown fox jumps over the lazy dog " * 20


@pytest.fixture(autouse=True, params=["tcp", "shm"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Everything here holds for both."""
    if request.param == "shm":
        monkeypatch.setattr(pods, "DEFAULT_KV", KvSettings(shared_memory=tmp_path))
    return str(request.param)


SLOW_LINK = 0.05
"""Seconds that each page takes where a test needs to step in between."""


def slow_link() -> LinkPace:
    return LinkPace(0.0, FAST.kv_bytes_per_token * 32 / SLOW_LINK, 64.0)


async def expected(prompt: str = PROMPT, tokens: int = 12) -> list[int]:
    """What one pod alone answers."""
    async with running_pod("decode") as alone, router(alone.internal_port) as client:
        return (await client.answer(submit("alone", prompt, tokens)))[0]


async def test_decode_goes_on_from_pages_that_really_crossed_and_computes_no_prompt_token(transport: str) -> None:
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        ids, text, last = await client.answer(submit("a", PROMPT, 12, prefill.peer))
        assert text == bytes(ids).decode()
        assert last.usage is not None
        assert last.usage.prefilled_here == 0
        await decode.idle()
        await prefill.idle()
        pages = -(-len(PROMPT) // 32)
        page_bytes = prefill.pod.engine.capacity.layout.page_bytes
        assert prefill.pod.sent.tx_bytes == decode.pod.received.rx_bytes == pages * page_bytes
        assert last.usage.kv_bytes_received == pages * page_bytes
        assert decode.pod.engine.engine.scheduler.counters.prompt_tokens == 0
        assert {link.transport for link in decode.pod.receiver.links.connected} == {transport}
        assert prefill.pod.engine.engine.scheduler.counters.prompt_tokens == len(PROMPT)
    assert ids == await expected()


async def test_many_requests_share_one_connection_and_none_gets_the_pages_of_another() -> None:
    prompts = [f"{number} {PROMPT[: 40 * number]}" for number in range(1, 13)]
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        answers = await asyncio.gather(
            *(client.answer(submit(f"r{n}", prompt, 10, prefill.peer)) for n, prompt in enumerate(prompts))
        )
        alone = [(await client.answer(submit(f"s{n}", prompt, 10)))[0] for n, prompt in enumerate(prompts)]
        assert [ids for ids, _, _ in answers] == alone
        assert all(last.usage is not None and last.usage.prefilled_here == 0 for _, _, last in answers)
        assert len(prefill.pod.sender.connections) == 1
        assert prefill.pod.sent.tx_bytes == decode.pod.received.rx_bytes
        await decode.idle()
        await prefill.idle()


async def test_a_resumed_stream_takes_the_kv_of_prompt_and_emitted_tokens_and_goes_on() -> None:
    whole = await expected()
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        ids, text, last = await client.answer(submit("a", PROMPT, 12, prefill.peer, emitted_ids=whole[:5]))
    assert ids == whole[5:]
    assert text == bytes(whole[5:]).decode()
    assert last.usage is not None
    assert (last.usage.output_tokens, last.usage.prefilled_here) == (12, 0)


async def falls_back(decode: RunningPod, peer: PrefillPeer, reason: str) -> None:
    """The request is served all the same, with the same tokens, and the reason is counted."""
    async with router(decode.internal_port) as client:
        ids, _, last = await client.answer(submit("a", PROMPT, 12, peer))
        assert ids == await expected()
        assert last.usage is not None
        assert last.usage.prefilled_here == len(PROMPT)
        assert decode.pod.receiver.fallbacks == {reason: 1}
        await decode.idle()


async def test_a_prefill_pod_that_is_not_there_costs_time_not_the_answer() -> None:
    async with running_pod("decode") as decode:
        await falls_back(decode, PrefillPeer("gone", "127.0.0.1", 1, "x"), "peer_lost")


async def test_a_prefill_pod_that_dies_in_the_middle_of_a_transfer_costs_time_not_the_answer() -> None:
    async with running_pod("prefill", pace=slow_link()) as prefill, running_pod("decode") as decode:

        async def kill() -> None:
            await until(lambda: prefill.pod.sent.tx_frames >= 3)
            prefill.pod.sender.stop()

        killer = asyncio.create_task(kill())
        await falls_back(decode, prefill.peer, "peer_lost")
        await killer
        assert 0 < decode.pod.received.rx_frames < 28
        await prefill.idle()


async def test_a_prefill_pod_that_was_restarted_meanwhile_is_not_asked() -> None:
    async with running_pod("prefill") as prefill, running_pod("decode") as decode:
        peer = PrefillPeer("prefill-0", "127.0.0.1", prefill.pod.kv_port, "the one before")
        await falls_back(decode, peer, "peer_restarted")


async def test_a_draining_prefill_pod_says_busy_and_decode_computes_itself() -> None:
    async with running_pod("prefill") as prefill, running_pod("decode") as decode:
        await prefill.pod.drain(1.0)
        await falls_back(decode, prefill.peer, "busy")


async def test_kv_that_is_too_slow_is_not_waited_for() -> None:
    async with (
        running_pod("prefill", pace=slow_link()) as prefill,
        running_pod("decode", remote_kv_seconds=0.3) as decode,
    ):
        await falls_back(decode, prefill.peer, "late")
        await prefill.idle()


async def test_a_silent_prefill_pod_is_given_up_within_seconds() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server, running_pod("decode") as decode:
        port = server.sockets[0].getsockname()[1]
        await falls_back(decode, PrefillPeer("frozen", "127.0.0.1", port, ""), "peer_lost")


async def test_pods_of_different_models_reject_each_other_with_both_hashes(caplog: pytest.LogCaptureFixture) -> None:
    other = EmulatedExecutor(msgspec.structs.replace(FAST, kv_bytes_per_token=2048))
    async with running_pod("prefill", executor=other) as prefill, running_pod("decode") as decode:
        await falls_back(decode, prefill.peer, "rejected")
        assert prefill.pod.engine.capacity.compat_hash in caplog.text
        assert decode.pod.engine.capacity.compat_hash in caplog.text
        assert (prefill.pod.sent.rejects, decode.pod.received.rejects) == (1, 1)
        assert prefill.pod.sent.tx_bytes == 0


async def test_a_pod_with_another_token_gets_no_kv() -> None:
    async with running_pod("prefill", token="theirs") as prefill, running_pod("decode") as decode:
        await falls_back(decode, prefill.peer, "rejected")
        assert prefill.pod.engine.engine.scheduler.counters.added == 0


async def test_a_new_token_breaks_no_connection_that_stands_and_holds_for_the_next() -> None:
    tokens = {"prefill": "old", "decode": "old"}
    async with (
        running_pod("prefill", token=lambda: tokens["prefill"]) as prefill,
        running_pod("decode", token=lambda: tokens["decode"]) as decode,
    ):

        async def prefilled_here(request_id: str, token: str) -> int:
            async with router(decode.internal_port, token=token) as client:
                _, _, last = await client.answer(submit(request_id, PROMPT, 4, prefill.peer))
                assert last.usage is not None
                return last.usage.prefilled_here

        assert await prefilled_here("a", "old") == 0
        tokens["prefill"] = "new"  # the file of one pod changed first: hashes on the connection still agree
        assert await prefilled_here("b", "old") == 0
        tokens["decode"] = "new"
        assert await prefilled_here("c", "new") == 0
        for connection in list(prefill.pod.sender.connections):
            connection.channel.abort()
        await until(lambda: not prefill.pod.sender.connections and not decode.pod.receiver._links)
        assert await prefilled_here("d", "new") == 0
        async with router(decode.internal_port, token="old") as late:
            assert "wrong token" in (await late.heard(wire.Refused)).reason


Change = Callable[[tuple[int, int], bytes], tuple[tuple[int, int], bytes]]


def tamper(monkeypatch: pytest.MonkeyPatch, change: Change, frames: int = 1 << 30) -> None:
    """Changes the first `frames` frames that prefill pods send: place (page, generation) and payload; the checksum is
    of the original."""
    original, left = Channel.send_payload, [frames]

    async def send(self: Channel, message: kv.Frame | kv.Block, payload: bytes) -> None:
        if isinstance(message, kv.Frame) and left[0] > 0:
            left[0] -= 1
            (page, generation), payload = change((message.page, message.generation), bytes(payload))
            message = msgspec.structs.replace(message, page=page, generation=generation)
        await original(self, message, payload)

    monkeypatch.setattr(Channel, "send_payload", send)


def flip(place: tuple[int, int], payload: bytes) -> tuple[tuple[int, int], bytes]:
    return place, payload[:-1] + bytes([payload[-1] ^ 1])


async def test_a_damaged_frame_is_asked_for_once_more_and_the_kv_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tamper(monkeypatch, flip, frames=1)
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        ids, _, last = await client.answer(submit("a", PROMPT, 12, prefill.peer))
        assert ids == await expected()
        assert last.usage is not None
        assert last.usage.prefilled_here == 0
        assert (decode.pod.received.crc_errors, decode.pod.received.nacks, prefill.pod.sent.resent_pages) == (1, 1, 1)
        await decode.idle()
        await prefill.idle()


async def test_a_header_that_leads_to_another_page_of_the_request_is_damage_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by the property test: the payload's own checksum was right, and it went over another page."""
    tamper(monkeypatch, lambda place, payload: ((place[0] + 1, place[1]), payload), frames=1)
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        ids, _, last = await client.answer(submit("a", PROMPT, 12, prefill.peer))
        assert ids == await expected()
        assert last.usage is not None
        assert last.usage.prefilled_here == 0
        assert (decode.pod.received.crc_errors, decode.pod.received.frames_stale) == (1, 0)
        await decode.idle()
        await prefill.idle()


async def test_a_frame_that_is_damaged_twice_ends_the_attempt_and_its_page_is_never_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tamper(monkeypatch, flip)
    async with running_pod("prefill") as prefill, running_pod("decode") as decode:
        await falls_back(decode, prefill.peer, "crc")
        await prefill.idle()


@pytest.mark.parametrize("wrong", [(0, 1), (1000, 0)])
async def test_a_frame_for_another_generation_or_page_is_dropped_counted_and_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, wrong: tuple[int, int]
) -> None:
    tamper(monkeypatch, lambda place, payload: ((place[0] + wrong[0], place[1] + wrong[1]), payload))
    async with running_pod("prefill") as prefill, running_pod("decode") as decode:
        await falls_back(decode, prefill.peer, "incomplete")
        pages = -(-len(PROMPT) // 32)
        assert decode.pod.received.frames_stale == 2 * pages
        assert prefill.pod.sent.resent_pages == pages
        await prefill.idle()


async def test_frames_that_went_astray_once_are_named_after_commit_and_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tamper(monkeypatch, lambda place, payload: ((place[0] + 1000, place[1]), payload), frames=3)
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        ids, _, last = await client.answer(submit("a", PROMPT, 12, prefill.peer))
        assert ids == await expected()
        assert last.usage is not None
        assert last.usage.prefilled_here == 0
        assert (decode.pod.received.nacks, prefill.pod.sent.resent_pages) == (1, 3)
        await decode.idle()


async def test_a_client_that_leaves_during_the_transfer_frees_the_pages_on_both_sides() -> None:
    async with (
        running_pod("prefill", pace=slow_link()) as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        client.send(submit("a", PROMPT, 12, prefill.peer))
        await until(lambda: decode.pod.received.rx_frames >= 2)
        client.writer.close()
        await decode.idle()
        await prefill.idle()
        assert decode.pod.receiver.transfers == prefill.pod.sender.transfers == 0


async def test_a_decode_pod_that_dies_frees_the_pages_of_the_prefill_pod() -> None:
    async with running_pod("prefill", pace=slow_link()) as prefill:
        async with running_pod("decode") as decode, router(decode.internal_port) as client:
            client.send(submit("a", PROMPT, 12, prefill.peer))
            await until(lambda: prefill.pod.sent.tx_frames >= 2)
        await prefill.idle()


async def test_a_pod_that_holds_wrong_kv_fails_the_request_rather_than_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    original = EmulatedExecutor.write_pages

    def misplace(self: EmulatedExecutor, pages: list[int], *rest: object) -> None:
        original(self, [max(0, pages[0] - 1)], *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(EmulatedExecutor, "write_pages", misplace)
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        client.send(submit("a", PROMPT, 12, prefill.peer))
        last = await client.ended("a")
        assert isinstance(last, Failed)
        assert (last.reason, last.retryable) == ("kv_corrupt", True)
        assert [d.ids for d in client.of("a") if isinstance(d, Delta)] in ([], [[(await expected())[0]]])
        await decode.idle()


async def test_clients_that_leave_at_any_moment_lose_no_page_and_harm_no_other_answer() -> None:
    prompts = [f"{number} {PROMPT[: 60 * (number % 8)]}" for number in range(40)]
    chance = random.Random(7)
    few = msgspec.structs.replace(FAST, kv_tokens=3200, max_sequences=8)
    async with (
        running_pod("prefill", coefficients=few, pace=LinkPace(0.0, 1e8, 64.0)) as prefill,
        running_pod("decode", coefficients=few) as decode,
        router(decode.internal_port) as client,
    ):

        async def visit(number: int, prompt: str) -> list[int]:
            request = submit(f"r{number}", prompt, 20, prefill.peer)
            await asyncio.sleep(chance.random() / 4)
            if number % 2:
                return (await client.answer(request))[0]
            client.send(request)
            await asyncio.sleep(chance.random() / 4)
            client.send(Cancel(request.id, 0))
            await client.ended(request.id)
            return []

        answers = await asyncio.gather(*(visit(number, prompt) for number, prompt in enumerate(prompts)))
        await decode.idle()
        await prefill.idle()
        counters = decode.pod.engine.engine.scheduler.counters
        assert counters.added == counters.finished + counters.aborted + counters.failed
        for number in range(1, 40, 8):
            assert answers[number] == (await client.answer(submit(f"s{number}", prompts[number], 20)))[0]


async def test_pages_beyond_what_the_network_takes_stay_in_the_engine_and_room_comes_back() -> None:
    large = msgspec.structs.replace(FAST, kv_bytes_per_token=1 << 20)
    prompt = PROMPT * 4
    async with (
        running_pod("prefill", coefficients=large, pace=LinkPace(0.0, 4 << 30, 64.0)) as prefill,
        running_pod("decode", coefficients=large) as decode,
        router(decode.internal_port) as client,
    ):
        engine = prefill.pod.engine.engine
        client.send(submit("leaves", prompt, 4, prefill.peer))
        await until(lambda: engine.untaken_bytes >= UNTAKEN_BYTES)
        assert engine.untaken_bytes < UNTAKEN_BYTES + prefill.pod.engine.capacity.layout.page_bytes
        client.send(Cancel("leaves", 0))
        await prefill.idle()
        await until(lambda: engine.untaken_bytes == 0)
        _, _, last = await client.answer(submit("stays", prompt, 4, prefill.peer))
        assert last.usage is not None
        assert last.usage.prefilled_here == 0
        assert last.usage.kv_bytes_received > 2 * UNTAKEN_BYTES
        await until(lambda: engine.untaken_bytes == 0)
