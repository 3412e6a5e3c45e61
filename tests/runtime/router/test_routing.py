"""A router in front of fake pods: what a client sees while pods come, go, die and freeze."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import aiohttp
import msgspec
import pytest
from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.endpoints import Endpoints, PodEndpoint, ServiceEndpoint
from tandem_runtime.contracts.framing import FrameError, pack
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.policy.waiting import QueueLimits
from tandem_runtime.router.flight import Flight
from tandem_runtime.text.byte_tokenizer import ByteTokenizer

from tests.runtime.router.fake_pod import FakePod, answer_ids
from tests.runtime.router.harness import MODEL, SETTINGS, eventually, running_router


def expected_text(prompt: str, tokens: int) -> str:
    tokenizer = ByteTokenizer()
    return tokenizer.decode(answer_ids(tokenizer.encode(prompt), tokens))


async def test_a_stream_and_a_whole_answer_carry_the_same_text_and_name_the_prefill_pod() -> None:
    prefill, decode = FakePod("p0", role="prefill"), FakePod("d0")
    async with running_router(prefill, decode) as router:
        status, answer, _ = await router.complete(max_tokens=33)
        assert status == 200
        assert answer["choices"][0]["text"] == expected_text("hello", 33) == await router.stream_text(max_tokens=33)
        assert (answer["usage"]["prompt_tokens"], answer["usage"]["total_tokens"]) == (6, 39)
    peer = decode.submits[0].prefill_peer
    assert peer == wire.PrefillPeer("p0", "127.0.0.1", 8002, prefill.incarnation)
    assert not prefill.submits


async def test_without_a_prefill_pod_the_decode_pod_computes_the_prompt() -> None:
    decode = FakePod("d0")
    async with running_router(decode) as router:
        status, _, _ = await router.complete()
    assert status == 200
    assert decode.submits[0].prefill_peer is None


async def test_a_decode_pod_killed_mid_stream_is_replaced_without_a_missing_or_repeated_token() -> None:
    dying, other = FakePod("a", die_after_tokens=7), FakePod("b")
    async with running_router(dying, other) as router:
        assert await router.stream_text(max_tokens=40) == expected_text("hello", 40)
        metrics = await (await router.session.get(router.metrics_url + "/metrics")).text()
    assert other.submits[0].emitted_ids == answer_ids(ByteTokenizer().encode("hello"), 7)
    assert other.submits[0].attempt == 1
    assert 'tandem_router_retries_total{reason="pod_lost"} 1.0' in metrics
    assert 'tandem_router_connections_refused_total{reason="too_many"} 0.0' in metrics


async def test_a_killed_pod_that_comes_back_alone_finishes_the_stream() -> None:
    pod = FakePod("d0", die_after_tokens=5)
    async with running_router(pod) as router:
        stream = asyncio.create_task(router.stream_text(max_tokens=30))
        await eventually(lambda: not router.app.backend.snapshots())
        pod.die_after_tokens = None
        await pod.start(int(pod.address.split(":")[1]))
        assert await stream == expected_text("hello", 30)


async def test_a_frozen_pod_is_given_up_after_three_heartbeats() -> None:
    frozen, other = FakePod("a", token_seconds=0.005), FakePod("b")
    async with running_router(frozen, other) as router:
        stream = asyncio.create_task(router.stream_text(max_tokens=40))
        await eventually(lambda: len(frozen.submits) == 1)
        frozen.frozen = True
        assert await stream == expected_text("hello", 40)


async def test_a_retryable_failure_goes_to_another_pod_and_a_final_one_to_the_client() -> None:
    def busy(submit: wire.Submit) -> wire.Failed:
        return wire.Failed(submit.id, submit.attempt, "draining", "going away", retryable=True)

    def broken(submit: wire.Submit) -> wire.Failed:
        return wire.Failed(submit.id, submit.attempt, "internal", "kernel exploded", retryable=False)

    first, second = FakePod("a", fail=busy), FakePod("b")
    async with running_router(first, second) as router:
        assert (await router.complete())[1]["choices"][0]["text"] == expected_text("hello", 20)
        assert len(first.submits) == 1
        first.fail = broken
        status, answer, headers = await router.complete()
        assert (status, answer["error"]["code"], headers["x-tandem-reason"]) == (500, "internal", "internal")


async def test_a_request_that_fails_everywhere_ends_after_a_bounded_number_of_attempts() -> None:
    def busy(submit: wire.Submit) -> wire.Failed:
        return wire.Failed(submit.id, submit.attempt, "sick", "not today", retryable=True)

    pod = FakePod("a", fail=busy)
    async with running_router(pod, max_attempts=3) as router:
        status, answer, _ = await router.complete()
    assert (status, answer["error"]["code"]) == (502, "attempts_exhausted")
    assert [submit.attempt for submit in pod.submits] == [0, 1, 2]


async def test_being_turned_away_is_no_failure_the_request_waits_until_it_is_taken() -> None:
    turned_away = 0

    def full_at_first(submit: wire.Submit) -> wire.Failed | None:
        nonlocal turned_away
        turned_away += 1
        if turned_away > 6:
            return None
        return wire.Failed(submit.id, submit.attempt, wire.Reason.OVERLOADED, "full", retryable=True)

    async with running_router(FakePod("a", fail=full_at_first), max_attempts=2) as router:
        assert (await router.complete())[1]["choices"][0]["text"] == expected_text("hello", 20)


async def test_requests_are_held_until_a_pod_is_ready() -> None:
    pod = FakePod("d0", ready=False)
    async with running_router(pod) as router:
        waiting = asyncio.create_task(router.complete())
        await eventually(lambda: len(router.app.backend.queue) == 1)
        pod.ready = True
        assert (await waiting)[0] == 200


async def test_without_any_pod_the_answer_is_503_with_retry_after_and_the_reason() -> None:
    async with running_router(limits=QueueLimits(wait_for_pods_seconds=0.1)) as router:
        status, answer, headers = await router.complete()
        assert status == 503
        assert headers["x-tandem-reason"] == answer["error"]["code"] == "no_pod"
        assert int(headers["Retry-After"]) > 0
        assert "no decode pod became ready within 0.1 s" in answer["error"]["message"]


async def test_a_full_queue_answers_at_once_429_when_pods_are_full_and_503_when_there_are_none() -> None:
    async with running_router(FakePod("d0", slots=0), limits=QueueLimits(max_requests=1)) as router:
        await eventually(lambda: all(snapshot.slots == 0 for snapshot in router.app.backend.snapshots()))
        waiting = asyncio.create_task(router.complete())
        await eventually(lambda: len(router.app.backend.queue) == 1)
        status, _, headers = await router.complete()
        assert (status, headers["x-tandem-reason"], headers["Retry-After"]) == (429, "queue_full", "1")
        waiting.cancel()
        await eventually(lambda: len(router.app.backend.queue) == 0)
    async with running_router(limits=QueueLimits(max_requests=1)) as router:
        waiting = asyncio.create_task(router.complete())
        await eventually(lambda: len(router.app.backend.queue) == 1)
        status, _, headers = await router.complete()
        assert (status, headers["x-tandem-reason"], headers["Retry-After"]) == (503, "no_pod", "1")
        waiting.cancel()
        await eventually(lambda: len(router.app.backend.queue) == 0)


async def test_the_request_timeout_ends_a_request_in_the_queue_and_one_in_a_pod() -> None:
    pod = FakePod("d0", ready=False, token_seconds=30)
    async with running_router(pod) as router:
        status, answer, _ = await router.complete(headers={"x-tandem-timeout-ms": "100"})
        assert (status, answer["error"]["code"]) == (504, "timeout")
        pod.ready = True
        await router.pods_ready(1)
        status, answer, _ = await router.complete(headers={"x-tandem-timeout-ms": "100"})
        assert (status, answer["error"]["code"]) == (504, "timeout")
        await eventually(lambda: len(pod.cancels) == 1)


async def test_a_client_that_leaves_cancels_its_request_in_the_pod() -> None:
    pod = FakePod("d0", token_seconds=0.01)
    async with running_router(pod) as router:
        async for _ in router.stream("hello", 4000):
            break
        whole = asyncio.create_task(router.complete(max_tokens=4000))
        await eventually(lambda: len(pod.submits) == 2)
        whole.cancel()
        await eventually(lambda: len(pod.cancels) == 2)
        await eventually(lambda: router.app.front.in_flight == 0)
        signals = await router.signals()
        assert signals["classes"]["default"]["cancelled"] == 2


async def test_a_pod_with_a_wrong_token_or_revision_is_not_used_and_said_so() -> None:
    stranger, old = FakePod("a", token="other", ready=False), FakePod("b", revision="rev0", ready=False)
    async with running_router(stranger, old, limits=QueueLimits(wait_for_pods_seconds=0.3)) as router:
        _, answer, _ = await router.complete()
    assert "wrong token" in answer["error"]["message"]
    assert "revision rev0; this router serves rev1" in answer["error"]["message"]


async def test_a_new_token_is_said_from_the_next_connection_on() -> None:
    tokens = ["old"]
    links = replace(SETTINGS.links, refused_backoff_seconds=0.05)
    pod = FakePod("d0", token="old")
    async with running_router(pod, token=lambda: tokens[-1], links=links) as router:
        pod.token = "new"
        assert (await router.complete())[0] == 200, "the connection that stands goes on"
        port = int(pod.address.split(":")[1])
        await pod.kill()
        await pod.start(port)
        await eventually(lambda: any("wrong token" in link.problem for link in router.app.backend.links.values()))
        tokens.append("new")
        assert (await router.complete())[0] == 200


async def test_pods_that_leave_the_file_finish_their_requests_and_new_ones_are_found() -> None:
    first, second = FakePod("a", token_seconds=0.01), FakePod("b")
    async with running_router(first) as router:
        stream = asyncio.create_task(router.stream_text(max_tokens=40))
        await eventually(lambda: len(first.submits) == 1)
        await second.start()
        router.list_pods(second)
        await router.pods_ready(2)
        assert await stream == expected_text("hello", 40)
        await first.kill()
        await eventually(lambda: len(router.app.backend.links) == 1)
        for broken in ("{broken", '{"pods": [{"pod": "x", "address": "1.2.3.4:x", "role": "", "revision": ""}]}'):
            router.file.write_text(broken)
            await asyncio.sleep(0.1)
        assert (await router.complete())[0] == 200
        await second.kill()


async def test_a_request_that_fits_no_message_is_refused_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def pack_little(control: bytes) -> bytes:
        if len(control) > 1000:
            raise FrameError(f"control message of {len(control)} bytes")
        return pack(control)

    pod = FakePod("d0", ready=False)
    async with running_router(pod) as router:
        monkeypatch.setattr("tandem_runtime.router.link.pack", pack_little)
        large = asyncio.create_task(router.complete("x" * 2000))
        small = asyncio.create_task(router.complete())
        await eventually(lambda: len(router.app.backend.queue) == 2)
        pod.ready = True
        status, answer, _ = await large
        assert (status, "cannot be sent" in answer["error"]["message"]) == (400, True)
        assert (await small)[0] == 200
        assert not router.app.backend.retries


def test_a_request_that_was_turned_away_for_minutes_has_a_short_line_in_the_log() -> None:
    flight = Flight(wire.Submit("a", 0, [1], Sampling(1), 1000), 0.0, 1.0)
    flight.retries = [f"reason {number}" for number in range(1000)]
    flight.pods = ["pod"] * 1000
    told = str(flight.details())
    assert "992 before; reason 992" in told
    assert len(told) < 300


async def test_an_address_that_nobody_can_connect_to_harms_no_other() -> None:
    pod = await FakePod("d0").start()
    async with running_router() as router:
        odd = [PodEndpoint("x", address, "decode", "rev1") for address in ("10.0.0.1:99999", "a..b", "\u0000", "")]
        services = [ServiceEndpoint(name, "decode") for name in ("a..b", "localhost:99999", "x" * 300)]
        entries = [*odd, PodEndpoint("d0", pod.address, "decode", "rev1")]
        router.file.write_bytes(msgspec.json.encode(Endpoints(pods=entries, services=services)))
        await router.pods_ready(1)
        assert (await router.complete())[0] == 200
        second = await FakePod("d1").start()
        router.list_pods(pod, second)
        await router.pods_ready(2)
        await second.kill()
    await pod.kill()


async def test_the_name_of_a_service_is_resolved_and_its_pods_say_who_they_are() -> None:
    pod = await FakePod("d0").start()
    async with running_router() as router:
        router.list_pods(services=[ServiceEndpoint(f"localhost:{pod.address.split(':')[1]}", "decode")])
        await router.pods_ready(1)
        assert (await router.complete())[0] == 200
    await pod.kill()


async def test_credits_bound_what_a_pod_is_sent() -> None:
    pod = FakePod("d0", slots=2, token_seconds=0.02)
    async with running_router(pod) as router:
        await eventually(lambda: all(snapshot.slots == 2 for snapshot in router.app.backend.snapshots()))
        pod.slots = 0
        requests = [asyncio.create_task(router.complete(max_tokens=2)) for _ in range(3)]
        await eventually(lambda: len(pod.submits) == 2)
        assert len(router.app.backend.queue) == 1
        pod.slots = 2
        assert [status for status, _, _ in await asyncio.gather(*requests)] == [200, 200, 200]


async def test_a_router_that_ends_finishes_its_streams_and_sends_kept_connections_away() -> None:
    pod = FakePod("d0", token_seconds=0.01)
    async with running_router(pod) as router:
        await asyncio.gather(router.complete(max_tokens=1), router.complete(max_tokens=1))  # two connections are kept
        stream = asyncio.create_task(router.stream_text(max_tokens=60))
        await eventually(lambda: len(pod.submits) == 3)
        drain = asyncio.create_task(router.app.drain(10))
        await eventually(lambda: router.app.front.draining)
        status, _, headers = await router.complete(max_tokens=1)  # was on its way when SIGTERM came
        assert (status, headers["Connection"]) == (200, "close")
        with pytest.raises(aiohttp.ClientConnectorError):
            await router.complete(max_tokens=1)
        assert await stream == expected_text("hello", 60)
        await drain
        assert router.app.front.in_flight == 0


async def test_probes_tell_ready_without_pods_and_not_ready_while_draining() -> None:
    pod = FakePod("d0", token_seconds=0.01)
    async with running_router(pod) as router:
        for path in ("/healthz", "/readyz"):
            assert (await router.session.get(router.metrics_url + path)).status == 200
        stream = asyncio.create_task(router.stream_text(max_tokens=30))
        await eventually(lambda: len(pod.submits) == 1)
        drain = asyncio.create_task(router.app.drain(10))
        await asyncio.sleep(0)
        assert (await router.session.get(router.metrics_url + "/readyz")).status == 503
        assert await stream == expected_text("hello", 30)
        await drain
        assert router.app.front.in_flight == 0


async def test_many_requests_at_once_spread_over_the_pods_and_all_come_back_whole() -> None:
    pods = [FakePod(f"d{index}", token_seconds=0.001) for index in range(3)]
    async with running_router(*pods) as router:
        prompts = [f"prompt {index}" for index in range(60)]
        texts = await asyncio.gather(*[router.stream_text(prompt, 10) for prompt in prompts])
        assert texts == [expected_text(prompt, 10) for prompt in prompts]
        assert [len(pod.submits) for pod in pods] == [20, 20, 20]
        assert not router.app.backend._flights
        assert not router.app.backend._details


async def test_the_access_log_names_pods_and_reasons_but_never_the_prompt(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tandem.access")
    async with running_router(FakePod("p0", role="prefill"), FakePod("a", die_after_tokens=3), FakePod("b")) as router:
        await router.complete("my secret prompt", headers={"x-request-id": "abc"})
        await router.post("/v1/completions", {"model": MODEL, "prompt": "my secret prompt", "suffix": "x"})
    first, second = [record.__dict__["fields"] for record in caplog.records if record.name == "tandem.access"]
    assert (first["request"], first["status"], first["attempts"], first["reason"]) == ("abc", 200, 2, "length")
    assert first["pods"] == "p0+a>p0+b"
    assert "connection" in first["retries"]
    assert (second["status"], second["reason"]) == (400, "unsupported_parameter")
    assert b"secret" not in msgspec.json.encode([first, second])
