"""Pods that change their role: a router believes their hello, and loses nothing on the way."""

from __future__ import annotations

import asyncio

import msgspec
from tandem_runtime.contracts.endpoints import Endpoints, PodEndpoint

from tests.runtime.router.fake_pod import FakePod
from tests.runtime.router.harness import Harness, eventually, running_router
from tests.runtime.router.test_drains import drain_of, order
from tests.runtime.router.test_routing import expected_text


async def metric(router: Harness, name: str) -> str:
    async with router.session.get(router.metrics_url + "/metrics") as answer:
        return next((line.split()[-1] for line in (await answer.text()).splitlines() if line.startswith(name)), "")


def roles(router: Harness) -> dict[str, str]:
    return {pod.pod: pod.role for pod in router.app.backend.snapshots() if pod.serves()}


async def test_what_a_pod_says_of_its_role_counts_and_not_what_the_endpoint_file_says() -> None:
    listed_as_decode, listed_as_prefill = FakePod("x", role="prefill"), FakePod("y", role="decode")
    async with running_router(listed_as_decode, listed_as_prefill) as router:
        pods = [
            PodEndpoint("x", listed_as_decode.address, "decode", "rev1"),
            PodEndpoint("y", listed_as_prefill.address, "prefill", "rev1"),
        ]
        router.file.write_bytes(msgspec.json.encode(Endpoints(pods=pods)))
        await asyncio.sleep(0.15)  # it is read every 0.05 s
        for _ in range(3):
            assert await router.stream_text(max_tokens=5) == expected_text("hello", 5)
        assert not listed_as_decode.submits, "a pod that computes prompts gets no answer to decode"
        assert {submit.prefill_peer.pod for submit in listed_as_prefill.submits if submit.prefill_peer} == {"x"}
        assert len(listed_as_prefill.submits) == 3


async def test_two_pods_that_change_places_are_used_as_what_they_are_from_their_hello_on() -> None:
    a, b = FakePod("a", role="prefill"), FakePod("b", role="decode")
    async with running_router(a, b) as router:
        assert (await router.complete(max_tokens=2))[0] == 200
        a.flip("decode")
        b.flip("prefill")
        await eventually(lambda: roles(router) == {"a": "decode", "b": "prefill"})
        assert (await router.complete(max_tokens=2))[0] == 200
        assert [submit.prefill_peer.pod for submit in a.submits if submit.prefill_peer] == ["b"]
        assert [submit.prefill_peer.incarnation for submit in a.submits if submit.prefill_peer] == [b.incarnation]
        startups = {each.incarnation: each for each in router.app.backend.board.startups.values()}
        assert (startups[a.incarnation].flipped_from, startups[a.incarnation].flip_s) == ("prefill", 0.5)
        assert startups[a.incarnation].ready is not None
        assert [each.flipped_from for each in startups.values()].count("") == 2, "those of before"
        assert all(each.flip_s is None for each in startups.values() if not each.flipped_from)


async def test_links_that_are_tested_after_the_change_count_in_what_it_took() -> None:
    pod = FakePod("a", role="prefill")
    async with running_router(pod) as router:
        pod.ready = False
        pod.flip("decode")
        await eventually(lambda: pod.incarnation in router.app.backend.board.startups)
        await asyncio.sleep(0.2)
        pod.ready = True
        pod.tell_state()
        await eventually(lambda: roles(router) == {"a": "decode"})
        startup = router.app.backend.board.startups[pod.incarnation]
        assert startup.flip_s is not None
        assert startup.flip_s >= 0.7


async def test_its_drain_is_told_as_a_flip_and_a_stream_that_it_leaves_is_moved_without_a_failure() -> None:
    turning, other = FakePod("a", token_seconds=0.02), FakePod("b", ready=False)
    async with running_router(turning, other, max_attempts=1) as router:
        stream = asyncio.create_task(router.stream_text(max_tokens=60))
        await eventually(lambda: len(turning.submits) == 1)
        turning.draining, turning.becoming, other.ready = True, "prefill", True
        turning.tell_state()
        other.tell_state()
        await eventually(lambda: roles(router) == {"b": "decode"})
        turning.flip("prefill")
        assert await stream == expected_text("hello", 60), "with one attempt allowed: it did not fail"
        account = await drain_of(router)
        assert (account["cause"], account["migrated"], account["lost"], account["done"]) == ("flipped", 1, 0, True)
        assert account["incarnation"] != turning.incarnation
        assert await metric(router, 'tandem_router_retries_total{reason="moved"}') == "1.0"
        assert await metric(router, 'tandem_router_drains_total{cause="flipped"}') == "1.0"


async def test_fences_and_orders_are_of_the_role_that_is_gone() -> None:
    pod = FakePod("a", role="prefill", keeps_prefixes=True)
    async with running_router(pod) as router:
        before = pod.incarnation
        assert (await order(router, "/fence", pod))[1]["fenced"]
        pod.flip("decode")
        await router.pods_ready(1)
        assert len(router.app.backend.board.fences) == 0
        status, words = await order(router, "/drain", pod, incarnation=before)
        assert status == 409
        assert f"pod a is incarnation {pod.incarnation} now" in words
        assert (await router.complete(max_tokens=3))[0] == 200


async def test_a_pod_that_says_another_incarnation_amid_a_connection_loses_the_connection() -> None:
    pod = FakePod("a", role="prefill")
    async with running_router(pod) as router:
        pod.incarnation, pod.role = "another", "decode"
        for writer in pod._writers:
            pod._send(writer, pod._hello())
        await eventually(lambda: pod.connections == 2)
        await eventually(lambda: roles(router) == {"a": "decode"})
        assert (await router.complete(max_tokens=3))[0] == 200


async def test_a_pod_that_dies_while_it_changes_is_a_dead_pod_as_ever() -> None:
    dying, other = FakePod("a", token_seconds=0.02), FakePod("b", ready=False)
    async with running_router(dying, other) as router:
        port = int(dying.address.split(":")[1])
        stream = asyncio.create_task(router.stream_text(max_tokens=60))
        await eventually(lambda: len(dying.submits) == 1)
        dying.draining, dying.becoming, other.ready = True, "prefill", True
        dying.tell_state()
        other.tell_state()
        await eventually(lambda: roles(router) == {"b": "decode"})
        await dying.kill()
        assert await stream == expected_text("hello", 60)
        dying.draining, dying.becoming = False, ""
        await dying.start(port)  # with the role of its command line
        await eventually(lambda: roles(router) == {"a": "decode", "b": "decode"})
        assert (await drain_of(router))["lost"] == 0
