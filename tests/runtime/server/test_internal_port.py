"""What routers can do with a pod, and what nobody can do to it."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import msgspec
import pytest
from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.framing import pack
from tandem_runtime.contracts.pod_protocol import Delta, Failed
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.server.backend import LocalBackend
from tandem_runtime.server.text_stream import TextStream

from tests.runtime.server.pods import FAST, router, running_pod, submit, until

SLOW = msgspec.structs.replace(FAST, decode=msgspec.structs.replace(FAST.decode, phi0_s=0.01))


async def test_a_router_hears_who_answers_and_how_the_pod_is() -> None:
    async with running_pod("decode") as pod, router(pod.internal_port) as client:
        hello = await client.heard(wire.PodHello)
        assert (hello.pod, hello.role, hello.revision, hello.kv_port) == ("decode-0", "decode", "rev1", pod.pod.kv_port)
        assert hello.max_context_tokens == FAST.kv_tokens, "what fits the pages, not more"
        state = await client.heard(wire.PodState)
        assert (state.ready, state.draining, state.running) == (True, False, 0)
        await client.heard(wire.Credits, lambda c: c.slots == FAST.max_sequences)
        client.send(wire.Ping())
        await client.heard(wire.Pong)


async def test_two_routers_share_the_credits() -> None:
    async with running_pod("decode") as pod, router(pod.internal_port) as one, router(pod.internal_port) as two:
        await one.heard(wire.Credits, lambda c: c.slots == FAST.max_sequences // 2)
        await two.heard(wire.Credits, lambda c: c.slots == FAST.max_sequences // 2)


async def test_two_routers_that_send_all_they_may_at_once_never_get_more_in_than_there_is() -> None:
    small = msgspec.structs.replace(SLOW, max_sequences=6)
    async with running_pod("decode", coefficients=small) as pod, router(pod.internal_port) as one:
        async with router(pod.internal_port) as two:
            await two.heard(wire.Credits, lambda c: c.slots == 3)
            await one.heard(wire.Credits, lambda c: c.slots == 3)
            for index in range(6):
                one.send(submit(f"one{index}", "hello", 200))
                two.send(submit(f"two{index}", "hello", 200))
            await until(lambda: len([m for m in (*one.messages, *two.messages) if isinstance(m, Failed)]) == 6)
            for client in (one, two):
                turned_away = [m for m in client.messages if isinstance(m, Failed)]
                assert [(m.reason, m.retryable) for m in turned_away] == [("queue_full", True)] * 3
            assert pod.pod.engine.open_requests == 6
            await until(lambda: one.last(wire.Credits).slots == 0 == two.last(wire.Credits).slots)
        await until(lambda: one.last(wire.Credits).slots == 3)
        assert one.last(wire.Credits).received == 6
        assert pod.port.ledger.leases.keys() == {id(pod.port.connections[0])}, "who is gone holds nothing"


async def test_a_router_with_a_backlog_gets_the_credit_of_an_idle_one() -> None:
    async with running_pod("decode") as pod, router(pod.internal_port) as one, router(pod.internal_port) as two:
        half = FAST.max_sequences // 2
        await two.heard(wire.Credits, lambda c: c.slots == half)
        one.ping = wire.Ping(requests=100, tokens=3000, next_tokens=30)
        one.send(one.ping)
        await until(lambda: one.last(wire.Credits).slots > half + 10)
        assert two.last(wire.Credits).slots == FAST.max_sequences - one.last(wire.Credits).slots
        one.ping = wire.Ping()
        one.send(one.ping)
        await until(lambda: one.last(wire.Credits).slots == half == two.last(wire.Credits).slots)


async def test_a_router_that_falls_silent_has_no_credit_after_two_seconds() -> None:
    async with (
        running_pod("decode") as pod,
        router(pod.internal_port, beats=False) as dead,
        router(pod.internal_port) as alive,
    ):
        await alive.heard(wire.Credits)
        started = pod.pod.clock()
        await until(lambda: alive.last(wire.Credits).slots == FAST.max_sequences)
        assert pod.pod.clock() - started < 2.0 + 1.0
        assert dead.last(wire.Credits).slots == 0


@pytest.mark.parametrize(
    ("who", "words"),
    [({"token": "wrong"}, "wrong token"), ({"revision": "rev2"}, "rev2"), ({"token": "é"}, "wrong token")],
)
async def test_a_router_of_another_deployment_or_revision_is_refused(who: dict[str, str], words: str) -> None:
    async with running_pod("decode") as pod, router(pod.internal_port, beats=False, **who) as client:
        assert words in (await client.heard(wire.Refused)).reason
        await until(lambda: client.closed)
        assert len(client.messages) == 1


async def test_a_request_that_cannot_be_started_costs_no_other_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(tokenizer: Any, prompt_ids: list[int], emitted_ids: Any, stop: Any) -> TextStream:
        if prompt_ids == [7]:
            raise ZeroDivisionError
        return TextStream(tokenizer, prompt_ids, emitted_ids, stop)

    monkeypatch.setattr("tandem_runtime.server.session.TextStream", break_down)
    async with running_pod("decode") as pod, router(pod.internal_port) as client:
        client.send(submit("a", "hello", 100))
        await client.heard(Delta)
        client.send(submit("b", [7]))
        failed = await client.ended("b")
        assert isinstance(failed, Failed)
        assert (failed.reason, failed.retryable) == ("engine_error", True)
        assert isinstance(await client.ended("a"), Delta)
        await pod.idle()


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"prompt": []}, "invalid_request", "no tokens"),
        ({"prompt": [1, 70_000]}, "invalid_request", "70000"),
        ({"prompt": [-1]}, "invalid_request", "-1"),
        ({"prompt": [1 << 40]}, "invalid_request", "vocabulary"),
        ({"prompt": [1] * 20_000}, "context_length_exceeded", "20000"),
        ({"max_tokens": 0}, "invalid_request", "max_tokens"),
        ({"remaining_ms": 0}, "invalid_request", "remaining_ms"),
        ({"sampling": Sampling(4, temperature=float("nan"))}, "invalid_request", "temperature"),
        ({"sampling": Sampling(4, top_p=0.0)}, "invalid_request", "top_p"),
        ({"sampling": Sampling(4, top_k=-1)}, "invalid_request", "top_k"),
        ({"emitted_ids": [300_000]}, "invalid_request", "300000"),
    ],
)
async def test_a_request_that_makes_no_sense_fails_with_the_reason(
    changes: dict[str, Any], reason: str, words: str
) -> None:
    sampling = changes.pop("sampling", None)
    request = submit("a", **changes)
    if sampling is not None:
        request = msgspec.structs.replace(request, sampling=sampling)
    async with running_pod("decode") as pod, router(pod.internal_port) as client:
        client.send(request)
        failed = await client.ended("a")
        assert isinstance(failed, Failed)
        assert (failed.reason, failed.retryable) == (reason, False)
        assert words in failed.message
        assert (await client.answer(submit("b")))[2].finish_reason == "length"
        await pod.idle()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 32,
        struct.pack("!II", 0, 0),
        struct.pack("!II", 4, 0) + b"nope",
        pack(wire.encode(wire.Ping()), 4) + b"1234",
        pack(msgspec.msgpack.encode({"type": "submit", "id": 3})),
        pack(wire.encode(wire.Ping())),
        b"\x00",
    ],
)
async def test_garbage_closes_its_connection_and_harms_nobody(garbage: bytes) -> None:
    async with running_pod("decode", coefficients=SLOW) as pod, router(pod.internal_port) as client:
        client.send(submit("a", max_tokens=20))
        hello = pack(wire.encode(wire.RouterHello(wire.VERSION, "r", "i", "secret", "rev1")))
        for greeting in (b"", hello):
            reader, writer = await asyncio.open_connection("127.0.0.1", pod.internal_port)
            writer.write(greeting + garbage)
            writer.write_eof()
            async with asyncio.timeout(10):
                await reader.read()
            writer.close()
        last = await client.ended("a")
        assert isinstance(last, Delta)
        assert last.finish_reason == "length"


async def test_a_prefill_pod_takes_no_requests_of_routers() -> None:
    async with running_pod("prefill") as pod, router(pod.internal_port) as client:
        client.send(submit("a"))
        failed = await client.ended("a")
        assert isinstance(failed, Failed)
        assert (failed.reason, failed.retryable) == ("wrong_role", True)


async def test_a_cancelled_request_ends_once_and_its_pages_are_free() -> None:
    async with running_pod("decode", coefficients=SLOW) as pod, router(pod.internal_port) as client:
        client.send(submit("a", max_tokens=5000))
        await client.heard(Delta)
        for _ in range(3):
            client.send(wire.Cancel("a", 0))
        client.send(wire.Cancel("nobody", 0))
        last = await client.ended("a")
        assert isinstance(last, Delta)
        assert last.finish_reason == "cancelled"
        await pod.idle()
        count = len(client.of("a"))
        await client.answer(submit("b"))
        assert len(client.of("a")) == count, "nothing after the end"


async def test_a_router_that_leaves_takes_its_requests_with_it() -> None:
    async with running_pod("decode", coefficients=SLOW) as pod:
        async with router(pod.internal_port) as other, router(pod.internal_port) as client:
            await client.heard(wire.Credits, lambda c: c.slots >= 5)
            for number in range(5):
                client.send(submit(f"r{number}", max_tokens=5000))
            other.send(submit("kept", max_tokens=60))
            await client.heard(Delta)
            client.writer.close()
            last = await other.ended("kept")
            assert isinstance(last, Delta)
            assert last.finish_reason == "length"
        await pod.idle()
        assert pod.pod.cancelled == 5


async def test_a_router_that_falls_silent_is_gone_too() -> None:
    async with running_pod("decode", coefficients=SLOW) as pod, router(pod.internal_port, beats=False) as client:
        client.send(submit("a", max_tokens=5000))
        await until(lambda: client.closed)
        await pod.idle()


async def test_the_same_id_twice_is_told_apart_and_a_newer_attempt_replaces_the_older() -> None:
    async with running_pod("decode", coefficients=SLOW) as pod, router(pod.internal_port) as client:
        client.send(submit("a", max_tokens=5000, attempt=1))
        await client.heard(Delta)
        client.send(submit("a", max_tokens=3, attempt=1))
        failed = await client.heard(Failed)
        assert (failed.id, failed.reason) == ("a", "duplicate")
        ids, _, last = await client.answer(submit("a", max_tokens=3, attempt=2))
        assert (len(ids), last.finish_reason) == (3, "length")
        assert any(isinstance(d, Delta) and d.finish_reason == "cancelled" for d in client.of("a", 1))
        await pod.idle()


async def test_a_stop_string_ends_the_request_and_the_rest_is_not_computed() -> None:
    async with running_pod("decode") as pod, router(pod.internal_port) as client:
        _, text, _ = await client.answer(submit("a", max_tokens=40))
        word = text[20:23]
        ids, stopped, last = await client.answer(submit("b", max_tokens=40, stop=[word]))
        assert last.finish_reason == "stop"
        assert stopped == text[: text.index(word)]
        assert len(ids) == text.index(word) + 3
        await pod.idle()


async def test_more_requests_than_sequences_all_complete() -> None:
    few = msgspec.structs.replace(FAST, max_sequences=3, kv_tokens=320)
    async with running_pod("decode", coefficients=few) as pod, router(pod.internal_port) as client:
        answers = await asyncio.gather(*(client.answer(submit(f"r{n}", f"prompt {n} " * 4, 60)) for n in range(12)))
        assert [len(ids) for ids, _, _ in answers] == [60] * 12
        await pod.idle()


async def test_a_draining_pod_finishes_what_runs_and_takes_nothing_new() -> None:
    async with running_pod("decode", coefficients=SLOW) as pod, router(pod.internal_port) as client:
        client.send(submit("a", max_tokens=40))
        await client.heard(Delta)
        draining = asyncio.create_task(pod.pod.drain(20.0))
        state = await client.heard(wire.PodState, lambda s: s.draining)
        assert not state.ready
        client.send(submit("b"))
        refused = await client.ended("b")
        assert isinstance(refused, Failed)
        assert (refused.reason, refused.retryable) == ("draining", True)
        report = await draining
        assert (report.in_flight_at_start, report.completed, report.migrated, report.lost) == (1, 1, 0, 0)
        last = await client.ended("a")
        assert isinstance(last, Delta)
        assert last.finish_reason == "length"


async def test_what_the_drain_s_time_does_not_suffice_for_can_go_on_elsewhere() -> None:
    async with running_pod("decode", coefficients=SLOW) as pod, router(pod.internal_port) as client:
        client.send(submit("a", max_tokens=5000))
        await client.heard(Delta)
        report = await pod.pod.drain(0.1)
        assert (report.in_flight_at_start, report.completed, report.migrated, report.lost) == (1, 0, 1, 0)
        assert 0.1 <= report.seconds < 5
        failed = await client.ended("a")
        assert isinstance(failed, Failed)
        assert failed.retryable


async def test_the_local_front_streams_from_the_engine_and_a_reader_that_leaves_cancels() -> None:
    async with running_pod("both", coefficients=SLOW) as pod:
        backend = LocalBackend(pod.pod)
        replies: list[Delta | Failed] = []
        backend.submit(submit("a", max_tokens=5), replies.append)
        await until(lambda: bool(replies) and isinstance(replies[-1], Delta) and bool(replies[-1].finish_reason))
        assert [token for reply in replies if isinstance(reply, Delta) for token in reply.ids]
        assert isinstance(replies[-1], Delta)
        assert replies[-1].finish_reason == "length"
        cut: list[Delta | Failed] = []
        backend.submit(submit("b", max_tokens=5000), cut.append)
        await until(lambda: bool(cut))
        backend.cancel("nobody")
        backend.cancel("b")
        known = len(cut)
        await pod.idle()
        assert len(cut) == known


async def test_a_change_of_the_pod_at_the_moment_of_its_end_keeps_nothing_alive() -> None:
    # Python 3.11's wait_for swallows such a cancellation: pods hung at their end, once in a hundred
    async with running_pod("decode") as pod, router(pod.internal_port) as client:
        await client.heard(wire.PodState)
        telling = pod.port._ticker
        assert telling is not None
        for _ in range(200):
            if telling.done():
                break
            pod.pod.changed.set()
            await asyncio.sleep(0)
            telling.cancel()
            await asyncio.sleep(0.001)
            assert telling.cancelling() == 0 or telling.done(), "cancelled, and yet it goes on"
