"""What can be saved is saved; what cannot gets an error that says why, and no answer that is cut short looks whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.policy.waiting import QueueLimits

from tests.runtime.router.fake_pod import FakePod, answer_ids
from tests.runtime.router.harness import Harness, eventually, running_router
from tests.runtime.router.test_routing import expected_text


async def events_of(stream: AsyncIterator[str]) -> list[str]:
    return [event async for event in stream]


async def hand_back(pod: FakePod) -> None:
    """What a pod does at the end of its drain: its requests go back, and it ends."""
    pod.ready, pod.draining = False, True
    pod.tell_state()
    for submit in pod.submits:
        if work := pod._work.pop(submit.id, None):
            work.cancel()
            for writer in pod._writers:
                pod._send(writer, wire.Failed(submit.id, submit.attempt, "draining", "shut down", retryable=True))
    await asyncio.sleep(0.05)
    await pod.kill()


async def test_streams_of_the_last_decode_pod_that_drains_wait_for_the_replacement_and_go_on() -> None:
    pod, late = FakePod("a", token_seconds=0.01), FakePod("b")
    async with running_router(pod) as router:
        stream = asyncio.create_task(router.stream_text(max_tokens=60))
        await eventually(lambda: len(pod.submits) == 1)
        await asyncio.sleep(0.1)
        await hand_back(pod)
        second = asyncio.create_task(router.stream_text("other", max_tokens=10))
        await eventually(lambda: len(router.app.backend.queue) == 2)
        await late.start()
        router.list_pods(late)
        assert await stream == expected_text("hello", 60)
        assert await second == expected_text("other", 10)
        assert 0 < len(late.submits[0].emitted_ids) < 60, "the stream went on where its client stood, and before others"
        await late.kill()


async def test_a_stream_that_no_pod_takes_over_ends_with_the_reason_and_without_done() -> None:
    pod = FakePod("a", token_seconds=0.01)
    async with running_router(pod, limits=QueueLimits(wait_for_pods_seconds=0.3)) as router:
        reading = asyncio.create_task(events_of(router.stream("hello", 500)))
        await eventually(lambda: len(pod.submits) == 1)
        await asyncio.sleep(0.5)  # the request is older than the time to live, the lack of a pod is not
        await pod.kill()
        *chunks, last = await reading
        error = msgspec.json.decode(last)["error"]
        assert (error["code"], error["type"]) == ("no_pod", "unavailable_error")
        assert "within 0.3 s" in error["message"]
        assert "[DONE]" not in chunks
        text = "".join(msgspec.json.decode(chunk)["choices"][0]["text"] for chunk in chunks)
        assert text
        assert expected_text("hello", 500).startswith(text)


async def test_a_whole_answer_that_no_pod_takes_over_is_503_with_the_reason_in_a_header() -> None:
    pod = FakePod("a", die_after_tokens=5)
    async with running_router(pod, limits=QueueLimits(wait_for_pods_seconds=0.2)) as router:
        status, answer, headers = await router.complete(max_tokens=20)
        assert (status, headers["x-tandem-reason"], answer["error"]["code"]) == (503, "no_pod", "no_pod")
        assert int(headers["Retry-After"]) > 0


async def test_a_pod_that_repeats_or_skips_a_token_is_not_believed() -> None:
    class Stutterer(FakePod):
        async def _answer(self, submit: wire.Submit, writer: asyncio.StreamWriter) -> None:
            ids = answer_ids(submit.prompt_ids, 3)
            for index in (0, 1, 1):
                self._send(writer, wire.Step([wire.Delta(submit.id, submit.attempt, index, [ids[index]], "?")]))

    odd, good = Stutterer("a"), FakePod("b")
    async with running_router(odd, good) as router:
        text = await router.stream_text(max_tokens=12)
        if odd.submits:
            assert text.startswith("??"), "what it said before was of the stream"
            assert good.submits[0].emitted_ids == answer_ids(good.submits[0].prompt_ids, 2)
        assert len(good.submits) == 1


Outcome = tuple[int, str]


async def ask_too_slow_a_pod(router: Harness) -> Outcome:
    status, answer, _ = await router.complete(headers={"x-tandem-timeout-ms": "150"})
    return status, answer["error"]["code"]


async def ask_and_leave(router: Harness) -> Outcome:
    asking = asyncio.create_task(router.complete())
    await eventually(lambda: router.app.front.in_flight == 1)
    asking.cancel()
    await eventually(lambda: router.app.front.in_flight == 0)
    return 499, "client_gone"


@pytest.mark.parametrize("ask", [ask_too_slow_a_pod, ask_and_leave])
async def test_the_access_log_says_why_a_request_was_not_answered(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="tandem.access")
    async with running_router(FakePod("a", token_seconds=30)) as router:
        status, reason = await ask(router)
        await eventually(lambda: bool(caplog.records))
        fields = caplog.records[-1].fields  # type: ignore[attr-defined]
        assert (fields["status"], fields["reason"]) == (status, reason)
