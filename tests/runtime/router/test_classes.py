"""Service classes in a real router: order, objectives, shedding, and what signals, metrics and log say of them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tandem_runtime.contracts.classes import write_classes
from tandem_runtime.contracts.coefficients import Coefficients, Decode, Link, Prefill
from tandem_runtime.contracts.goodput import SloClass
from tandem_runtime.contracts.signals import SLACK_EDGES_SECONDS, RouterSignals, read_router_signals
from tandem_runtime.policy.waiting import QueueLaw

from tests.runtime.router.fake_pod import FakePod
from tests.runtime.router.harness import Harness, eventually, running_router

CHAT = SloClass(name="chat", ttft_base_s=30.0, tpot_s=1.0, priority=10)
BATCH = SloClass(name="batch", ttft_base_s=60.0, tpot_s=1.0)
HURRY = SloClass(name="hurry", ttft_base_s=0.05, tpot_s=1.0)
FAST = Coefficients(1, Prefill(0.0, 1e-4, 0.0), Decode(1e-3, 0.0, 0.0), Link(0.0, 1e9), 1, 100_000, 64, 0.0)


async def signals_of(router: Harness) -> RouterSignals:
    async with router.session.get(router.metrics_url + "/signals") as response:
        return read_router_signals(await response.read())


def of_class(name: str) -> dict[str, str]:
    return {"x-tandem-class": name}


async def started(router: Harness, **headers: str) -> asyncio.Task[Any]:
    """A request that waits in the queue."""
    before = len(router.app.backend.queue)
    task = asyncio.create_task(router.complete(max_tokens=3, headers=headers))
    await eventually(lambda: len(router.app.backend.queue) == before + 1)
    return task


async def test_the_class_with_the_higher_priority_goes_first_and_the_first_class_is_the_default() -> None:
    pod = FakePod("d0", ready=False)
    async with running_router(pod, classes=[CHAT, BATCH]) as router:
        requests = [await started(router, **of_class("batch")), await started(router), await started(router)]
        pod.ready = True
        assert [status for status, _, _ in await asyncio.gather(*requests)] == [200, 200, 200]
        assert [submit.request_class for submit in pod.submits] == ["chat", "chat", "batch"]


async def test_an_unknown_class_is_refused_with_the_names_of_those_there_are() -> None:
    async with running_router(FakePod("d0"), classes=[CHAT, BATCH]) as router:
        status, answer, _ = await router.complete(headers=of_class("gold"))
        assert (status, answer["error"]["code"]) == (400, "unknown_class")
        assert "has the classes chat, batch" in answer["error"]["message"]
    async with running_router(FakePod("d0")) as router:
        assert (await router.complete(headers=of_class("gold")))[0] == 200, "without classes the name means nothing"


async def test_goodput_is_counted_by_class_and_told_on_signals_metrics_and_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "tandem.access")
    async with running_router(FakePod("d0", token_seconds=0.02), classes=[CHAT, HURRY]) as router:
        await router.complete("hello", max_tokens=5)
        await router.complete("hello", max_tokens=5, headers=of_class("hurry"))
        signals = await signals_of(router)
        metrics = await (await router.session.get(router.metrics_url + "/metrics")).text()
        await eventually(lambda: len(caplog.records) == 2)
    chat, hurry = signals.classes["chat"], signals.classes["hurry"]
    assert (chat.arrivals, chat.prompt_tokens, chat.output_tokens, chat.completed, chat.met) == (1, 6, 5, 1, 1)
    assert (chat.prompt_tokens_squared, chat.output_tokens_squared) == (36, 25)
    assert (hurry.arrivals, hurry.met + hurry.missed) == (1, 1)
    assert sum(chat.ttft.counts) == sum(chat.tpot.counts) == 1
    assert sum(signals.ttft.counts) == 2
    assert 'tandem_router_goodput_requests_total{class="chat",end="met"} 1.0' in metrics
    assert 'tandem_router_ttft_seconds_count{class="chat"} 1' in metrics
    assert 'tandem_router_requests_total{status="200",reason="length",class="chat"} 1.0' in metrics
    first = caplog.records[0].__dict__["fields"]
    assert (first["class"], first["slo"]) == ("chat", "met")


async def test_a_missed_objective_is_no_error_and_the_log_says_what_was_promised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "tandem.access")
    pod = FakePod("d0", ready=False)
    async with running_router(pod, classes=[HURRY]) as router:
        request = await started(router)
        await asyncio.sleep(0.1)
        pod.ready = True
        assert (await request)[0] == 200
        assert (await signals_of(router)).classes["hurry"].missed == 1
        await eventually(lambda: len(caplog.records) == 1)
    fields = caplog.records[0].__dict__["fields"]
    assert (fields["slo"], fields["ttft_bound_seconds"]) == ("missed", 0.05)
    assert fields["queued_seconds"] > 0.05


async def test_what_is_late_is_shed_only_when_the_law_says_so() -> None:
    pod = FakePod("d0", ready=False)
    async with running_router(pod, classes=[HURRY, CHAT], queue=QueueLaw(sheds_late=True)) as router:
        patient = await started(router, **of_class("chat"))
        status, answer, headers = await router.complete(headers=of_class("hurry"))
        assert (status, headers["x-tandem-reason"]) == (429, "late")
        assert int(headers["Retry-After"]) >= 1
        assert "0.05 s, the objective of class hurry" in answer["error"]["message"]
        assert (await signals_of(router)).classes["hurry"].shed == 1
        pod.ready = True
        assert (await patient)[0] == 200


async def test_what_waits_is_told_by_its_slack_and_pods_by_their_start() -> None:
    pod, sleeper = FakePod("d0", slots=0), FakePod("d1", ready=False)
    async with running_router(pod, sleeper, classes=[CHAT, HURRY]) as router:
        await eventually(lambda: len(router.app.backend.snapshots()) == 2)
        requests = [await started(router), await started(router, **of_class("hurry"))]
        await asyncio.sleep(0.06)
        signals = await signals_of(router)
        assert (signals.queue.requests, signals.queue.tokens) == (2, 12)
        late = sum(signals.queue.slack_requests[: SLACK_EDGES_SECONDS.index(0.0) + 1])
        assert (late, sum(signals.queue.slack_requests), sum(signals.queue.slack_tokens)) == (1, 2, 12)
        assert {pod.pod: pod.ready for pod in signals.pods} == {"d0": True, "d1": False}
        begun = {each.pod: each for each in signals.startups}
        assert begun["d0"].ready is not None
        assert begun["d0"].loaded <= begun["d0"].ready <= signals.monotonic_s
        assert begun["d1"].ready is None
        sleeper.ready = True
        assert [status for status, _, _ in await asyncio.gather(*requests)] == [200, 200]
        assert {each.pod: each.ready is not None for each in (await signals_of(router)).startups}["d1"]


async def test_a_new_file_of_classes_holds_from_the_next_request_on_and_a_broken_one_changes_nothing() -> None:
    async with running_router(FakePod("d0"), classes=[CHAT]) as router:
        assert (await router.complete(headers=of_class("batch")))[0] == 400
        router.classes_file.write_bytes(write_classes([CHAT, BATCH]))
        await eventually(lambda: router.app.front.classes.find("batch") is not None)
        assert (await router.complete(headers=of_class("batch")))[0] == 200
        router.classes_file.write_text("{")
        await asyncio.sleep(0.15)
        assert (await router.complete(headers=of_class("batch")))[0] == 200
        assert (await signals_of(router)).classes["chat"].arrivals == 0


async def test_with_coefficients_a_busy_prefill_pod_gets_no_more_than_it_can_soon_start() -> None:
    slow = msgspec.structs.replace(FAST, prefill=Prefill(0.0, 0.1, 0.0))
    prefill = FakePod("p0", role="prefill", coefficients=slow)
    decode = FakePod("d0", coefficients=slow, token_seconds=0.05)
    async with running_router(prefill, decode, classes=[CHAT]) as router:
        first = asyncio.create_task(router.complete(max_tokens=1))
        second = asyncio.create_task(router.complete(max_tokens=1))
        await eventually(lambda: len(decode.submits) == 1)
        await asyncio.sleep(0.02)
        assert (len(decode.submits), len(router.app.backend.queue)) == (1, 1)
        assert [status for status, _, _ in await asyncio.gather(first, second)] == [200, 200]
        assert all(submit.prefill_peer is not None for submit in decode.submits)


async def test_when_the_prefill_pool_keeps_requests_waiting_a_decode_pod_with_slack_computes_the_prompt() -> None:
    slow = msgspec.structs.replace(FAST, prefill=Prefill(0.0, 10.0, 0.0))
    prefill, decode = FakePod("p0", role="prefill", coefficients=slow), FakePod("d0", coefficients=FAST)
    objective = SloClass(name="chat", ttft_base_s=0.3, tpot_s=1.0)
    async with running_router(prefill, decode, classes=[objective]) as router:
        decode.token_seconds = 0.6
        stuck = asyncio.create_task(router.complete(max_tokens=1))
        await eventually(lambda: len(decode.submits) == 1)
        assert (await router.complete(max_tokens=1))[0] == 200
        assert [submit.prefill_peer is None for submit in decode.submits] == [False, True]
        assert router.app.backend.ways == {"remote": 1, "converted": 1}
        assert (await stuck)[0] == 200


async def test_a_prompt_that_begins_like_an_earlier_one_goes_to_the_prefill_pod_that_computed_that() -> None:
    pods = [FakePod(f"p{index}", role="prefill", coefficients=FAST, keeps_prefixes=True) for index in range(3)]
    decode = FakePod("d0", coefficients=FAST)
    async with running_router(*pods, decode, classes=[CHAT]) as router:
        for ending in ("first", "second", "third"):
            assert (await router.complete("a long beginning " * 20 + ending, max_tokens=1))[0] == 200
        signals = await signals_of(router)
    peers = [submit.prefill_peer.pod for submit in decode.submits if submit.prefill_peer is not None]
    assert peers == [peers[0]] * 3
    assert signals.classes["chat"].cached_tokens > 600
