"""Fences and drains: who is fenced gets nothing new, and of what was there everything is accounted for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.router.drains import Drains
from tandem_runtime.router.fences import FORGET_SECONDS, Fences

from tests.runtime.router.fake_pod import FakePod
from tests.runtime.router.harness import Harness, eventually, running_router
from tests.runtime.router.test_routing import expected_text


async def order(router: Harness, path: str, pod: FakePod, token: str = "secret", **fields: Any) -> tuple[int, Any]:
    body = {"pod": pod.name, "incarnation": pod.incarnation, **fields}
    headers = {"Authorization": f"Bearer {token}"}
    async with router.session.post(router.metrics_url + path, json=body, headers=headers) as answer:
        text = await answer.text()
        return answer.status, await answer.json() if text.startswith("{") else text


async def drain_of(router: Harness) -> Any:
    return (await router.signals())["drains"][0]


async def test_a_fenced_pod_gets_nothing_new_and_what_runs_goes_on() -> None:
    a, b = FakePod("a", token_seconds=0.04), FakePod("b", token_seconds=0.04)
    async with running_router(a, b) as router:
        stream = asyncio.create_task(router.stream_text(max_tokens=30))
        await eventually(lambda: len(a.submits) + len(b.submits) == 1)
        busy, other = (a, b) if a.submits else (b, a)
        status, state = await order(router, "/fence", busy)
        assert (status, state["fenced"], state["in_flight"]) == (200, True, 1)
        assert (await order(router, "/fence", busy))[0] == 200
        for _ in range(4):
            assert (await router.complete(max_tokens=1))[0] == 200
        assert (len(busy.submits), len(other.submits)) == (1, 4)
        assert await stream == expected_text("hello", 30)
        pods = {pod["pod"]: pod["fenced"] for pod in (await router.signals())["pods"]}
        assert pods == {busy.name: True, other.name: False}
        metrics = await (await router.session.get(router.metrics_url + "/metrics")).text()
        assert f'tandem_router_fenced{{pod="{busy.name}",role="decode"}} 1.0' in metrics
        assert (await order(router, "/unfence", busy))[1]["fenced"] is False
        await router.pods_ready(2)


async def test_a_fence_outlives_a_broken_connection_and_goes_with_the_incarnation() -> None:
    pod = FakePod("d0")
    async with running_router(pod) as router:
        port, first = int(pod.address.split(":")[1]), pod.incarnation
        await order(router, "/fence", pod)
        for writer in pod._writers:
            writer.transport.abort()
        await eventually(lambda: pod.connections == 2)
        await eventually(lambda: bool(router.app.backend.snapshots()))
        assert [each.fenced for each in router.app.backend.snapshots()] == [True]
        await pod.kill()
        await pod.start(port)
        assert pod.incarnation != first
        await router.pods_ready(1)
        assert len(router.app.backend.board.fences) == 0


async def test_orders_need_the_token_and_the_incarnation_that_is_there() -> None:
    pod, stranger = FakePod("d0"), FakePod("d9", incarnation="nobody")
    async with running_router(pod) as router:
        for path in ("/fence", "/unfence", "/drain"):
            assert (await order(router, path, pod, token="wrong"))[0] == 401
            status, text = await order(router, path, pod, incarnation="older")
            assert status == 409
            assert f"is incarnation {pod.incarnation} now, and 'older' is gone" in text
            status, text = await order(router, path, stranger)
            assert (status, text.strip()) == (404, "no pod 'd9' is connected to this router")
            async with router.session.get(router.metrics_url + path) as answer:
                assert answer.status == 405
        assert (await order(router, "/drain", pod, timeout_seconds=-1))[0] == 400
        assert (await order(router, "/drain", pod, more=1))[0] == 400
        assert (await router.complete())[0] == 200, "nothing of that fenced it"


async def test_a_drain_lets_requests_finish_and_reports_them() -> None:
    pod, other = FakePod("a", token_seconds=0.05), FakePod("b", ready=False)
    async with running_router(pod, other) as router:
        streams = [asyncio.create_task(router.stream_text(max_tokens=20)) for _ in range(3)]
        await eventually(lambda: len(pod.submits) == 3)
        status, account = await order(router, "/drain", pod)
        assert (status, account["inFlightAtStart"], account["done"]) == (202, 3, False)
        assert await asyncio.gather(*streams) == [expected_text("hello", 20)] * 3
        await eventually(lambda: all(each.ended for each in router.app.backend.drains.records.values()))
        status, account = await order(router, "/drain", pod)
        assert status == 200
        assert {name: account[name] for name in ("completed", "migrated", "lost", "cancelled", "done")} == {
            "completed": 3, "migrated": 0, "lost": 0, "cancelled": 0, "done": True
        }  # fmt: skip
        assert await drain_of(router) == account
        metrics = await (await router.session.get(router.metrics_url + "/metrics")).text()
    assert 'tandem_router_drained_requests_total{outcome="completed"} 3.0' in metrics
    assert 'tandem_router_drained_requests_total{outcome="lost"} 0.0' in metrics
    assert 'tandem_router_drains_total{cause="order"} 1.0' in metrics


async def test_what_takes_longer_than_the_drain_moves_without_a_token_missing_or_twice() -> None:
    slow, other = FakePod("a", token_seconds=0.02), FakePod("b", ready=False)
    async with running_router(slow, other) as router:
        stream = asyncio.create_task(router.stream_text(max_tokens=60))
        await eventually(lambda: len(slow.submits) == 1)
        await order(router, "/drain", slow, timeout_seconds=0.1)
        await asyncio.sleep(0.3)
        assert not other.submits, "nobody could have taken it: it stays where it is"
        other.ready = True
        other.tell_state()
        assert await stream == expected_text("hello", 60)
        account = await drain_of(router)
    assert (account["migrated"], account["completed"], account["lost"], account["done"]) == (1, 0, 0, True)
    assert [cancel.id for cancel in slow.cancels] == [slow.submits[0].id]
    assert other.submits[0].attempt == 1


async def test_a_pod_that_is_terminated_is_reported_the_same_way() -> None:
    dying, other = FakePod("a", token_seconds=0.05), FakePod("b", ready=False)
    async with running_router(dying, other) as router:
        streams = [asyncio.create_task(router.stream_text(max_tokens=n)) for n in (10, 80)]
        await eventually(lambda: len(dying.submits) == 2)
        other.ready = dying.draining = True
        other.tell_state()
        dying.tell_state()
        assert await streams[0] == expected_text("hello", 10)
        await dying.kill()
        assert await streams[1] == expected_text("hello", 80)
        account = await drain_of(router)
    assert (account["cause"], account["pod"], account["inFlightAtStart"]) == ("terminated", "a", 2)
    assert (account["completed"], account["migrated"], account["lost"], account["done"]) == (1, 1, 0, True)


async def test_prompts_of_a_prefill_pod_are_completed_with_the_first_token() -> None:
    prefill, decode = FakePod("p0", role="prefill"), FakePod("d0", token_seconds=0.5)
    async with running_router(prefill, decode) as router:
        stream = asyncio.create_task(router.stream_text(max_tokens=1))
        await eventually(lambda: len(decode.submits) == 1)
        assert (await order(router, "/drain", prefill))[1]["inFlightAtStart"] == 1
        await stream
        account = await drain_of(router)
        assert (account["role"], account["completed"], account["done"]) == ("prefill", 1, True)


async def test_an_order_that_is_taken_back_may_be_given_again() -> None:
    pod = FakePod("d0", token_seconds=0.02)
    async with running_router(pod) as router:
        stream = asyncio.create_task(router.stream_text(max_tokens=40))
        await eventually(lambda: len(pod.submits) == 1)
        await order(router, "/drain", pod)
        await order(router, "/unfence", pod)
        assert (await drain_of(router))["done"]
        await router.pods_ready(1)
        status, account = await order(router, "/drain", pod)
        assert (status, account["inFlightAtStart"], account["done"]) == (202, 1, False)
        await stream


OUTCOMES = ("completed", "lost", "cancelled")
STEPS = st.lists(st.tuples(st.sampled_from(["begin", "move", "part", *OUTCOMES]), st.integers(0, 5)), max_size=60)


@given(STEPS)
def test_of_what_was_in_flight_each_request_is_in_exactly_one_outcome(steps: list[tuple[str, int]]) -> None:
    drains, gone = Drains(), set[str]()
    requests = [str(number) for number in range(6)]
    for now, (what, number) in enumerate(steps):
        request = requests[number]
        if what == "begin":
            here = [each for each in requests if each not in gone]
            drains.begin("p", "decode", f"i{number % 2}", "order", lambda here=here: here, now)  # type: ignore[misc]
        elif what == "move":
            drains.moved(request, f"i{number % 2}", now)
        elif what == "part":
            drains.completed(request, f"i{number % 2}", now)
        else:
            gone.add(request)
            drains.ended(request, what, now)  # type: ignore[arg-type]
        for drain in drains.records.values():
            ended = drain.completed + drain.migrated + drain.lost + drain.cancelled
            assert ended + len(drain.running) == drain.in_flight_at_start
            assert (drain.ended is None) == bool(drain.running)
            assert min(drain.completed, drain.migrated, drain.lost, drain.cancelled) >= 0


def test_fences_of_pods_that_nobody_sees_are_forgotten_in_the_end() -> None:
    fences = Fences()
    fences.put("a", "i1", 0.0)
    fences.put("b", "i2", 0.0)
    fences.seen("a", "i1", FORGET_SECONDS)
    fences.forget(FORGET_SECONDS + 1)
    assert "i1" in fences
    assert "i2" not in fences


@pytest.mark.parametrize(
    "head", [b"POST /fence HTTP/1.1\r\n\r\n", b"POST /fence HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n"]
)
async def test_orders_without_a_body_of_a_known_small_length_are_refused(head: bytes) -> None:
    async with running_router(FakePod("d0")) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.app.metrics_port)
        writer.write(head)
        assert (await reader.read()).split()[1] in (b"411", b"413")
        writer.close()
