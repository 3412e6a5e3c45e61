"""A pod takes the other role in place: what it refuses, what it finishes, and who it is afterwards."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.pod_protocol import Delta, Failed
from tandem_runtime.server.flip import Flip, Flipping
from tandem_runtime.server.role_order import RoleCall
from tandem_runtime.server.signals import Probes
from tandem_runtime.telemetry.http import Answer, Order
from tandem_runtime.transfer.identity import KvSettings
from tandem_runtime.transfer.pace import LinkPace

from tests.runtime.server.pods import FAST, Router, RunningPod, router, running_pod, submit, until

SLOW = msgspec.structs.replace(FAST, decode=msgspec.structs.replace(FAST.decode, phi0_s=0.01))
PROMPT = "a prompt that takes several pages of thirty-two tokens each, and some more of them " * 4
NAMED = {"token": "secret", "role": "prefill", "incarnation": "inc-decode"}


def slow_link(page_seconds: float) -> LinkPace:
    return LinkPace(0.0, FAST.kv_bytes_per_token * 32 / page_seconds, 64.0)


class Turned:
    """A running pod that obeys POST /role."""

    def __init__(self, running: RunningPod, grace_seconds: float = 20.0) -> None:
        self.running, self.pod = running, running.pod
        self.roles: list[str] = []
        self.flipping = Flipping(running.pod, running.port, grace_seconds, self.roles.append)
        self.call = RoleCall(lambda: "secret")
        self.call.attach(running.pod, self.flipping)
        self.probes = Probes()
        self.probes.pod, self.probes.port, self.probes.flipping = running.pod, running.port, self.flipping

    def order(self, role: str, incarnation: str = "", token: str = "secret", **more: Any) -> tuple[int, Any]:
        """Status, and the document or the words."""
        body = {"role": role, "incarnation": incarnation or self.pod.identity.incarnation, **more}
        return read(self.call.obey(Order({"authorization": f"Bearer {token}"}, json.dumps(body).encode())))

    async def turn(self, role: str, **more: Any) -> Flip:
        """Until it is ready in that role."""
        assert self.order(role, **more)[0] == 202
        await self.done()
        assert self.flipping.last is not None
        return self.flipping.last

    async def done(self) -> None:
        await until(lambda: not self.flipping.under_way)
        assert self.flipping.failure is None
        assert self.pod.ready


def read(answer: Answer) -> tuple[int, Any]:
    text = answer.body.decode()
    return answer.status, json.loads(text) if text.startswith("{") else text.strip()


def ids_of(client: Router, request_id: str) -> list[int]:
    return [token for delta in client.of(request_id) if isinstance(delta, Delta) for token in delta.ids]


async def test_an_idle_pod_becomes_another_one_and_everybody_is_told() -> None:
    async with running_pod("decode") as running:
        pod = Turned(running)
        async with router(running.internal_port) as client:
            alone, _, _ = await client.answer(submit("a", PROMPT, 8))
            assert pod.probes.signals()["iterations_total"] > 0
            flip = await pod.turn("prefill")
            assert (await client.heard(wire.PodState, lambda state: state.draining)).becoming == "prefill"
            await until(lambda: client.closed)
        async with router(running.internal_port) as client:
            hello = await client.heard(wire.PodHello)
            assert (hello.role, hello.flipped_from, hello.kv_port) == ("prefill", "decode", pod.pod.kv_port)
            assert hello.incarnation == flip.incarnation not in ("", "inc-decode")
            assert hello.flip_seconds == flip.seconds_at(0.0) > 0
            client.send(submit("b", PROMPT))
            refused = await client.ended("b")
            assert isinstance(refused, Failed)
            assert (refused.reason, refused.retryable) == ("wrong_role", True)
        signals = pod.probes.signals()
        assert (signals["role"], signals["incarnation"]) == ("prefill", flip.incarnation)
        assert (signals["flips"], signals["flip"]["done"], signals["flip"]["from"]) == (1, True, "decode")
        counted = ("iterations_total", "iterations", "prefix_asked_tokens", "kv_rx_bytes")
        assert [signals[name] for name in counted] == [0, [], 0, 0], "figures are of the incarnation"
        metrics = pod.probes.routes()["/metrics"]().body.decode()
        assert 'tandem_engine_role_info{role="prefill"} 1' in metrics
        assert "tandem_engine_flips_total 1" in metrics
        assert "vllm:generation_tokens_total" in metrics
        assert pod.probes.readyz().body == b"ready\n"

        await pod.turn("decode")
        assert pod.roles == ["prefill", "decode"]
        async with router(running.internal_port) as client:
            assert (await client.answer(submit("c", PROMPT, 8)))[0] == alone
        await running.idle()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"token": "wrong"}, 401, "say the token of the deployment"),
        ({"role": "both"}, 400, "a pod becomes prefill or decode in place, not 'both'"),
        ({"role": "router"}, 400, "not 'router'"),
        ({"grace_s": -1.0}, 400, "grace_s is -1.0"),
        ({"grace": 1.0}, 400, 'not {"role": "prefill" or "decode", "incarnation": ID}'),
        ({"incarnation": "older"}, 409, "pod decode-0 is incarnation inc-decode now, and 'older' is gone"),
    ],
)
async def test_what_is_not_in_order_is_refused_in_a_sentence_and_changes_nothing(
    body: dict[str, Any], status: int, words: str
) -> None:
    async with running_pod("decode") as running:
        pod = Turned(running)
        got, text = pod.order(**(NAMED | body))
        assert got == status
        assert words in text
        assert pod.pod.ready
        assert not pod.pod.becoming


async def test_a_pod_that_loads_tests_its_links_or_ends_refuses_and_one_of_both_roles_keeps_them() -> None:
    loading = RoleCall(lambda: "secret")
    body = json.dumps({"role": "decode", "incarnation": "x"}).encode()
    assert read(loading.obey(Order({"authorization": "Bearer secret"}, body))) == (503, "the model is loading")
    async with running_pod("decode", kv_settings=KvSettings(peers=("127.0.0.1:1",))) as running:
        pod = Turned(running)
        assert pod.order("prefill") == (409, "pod decode-0 is not ready: testing the link to prefill pods")
        await pod.pod.drain(0.0)
        for role in ("prefill", "decode"):
            assert pod.order(role) == (409, "pod decode-0 is shutting down")
    async with running_pod("both") as running:
        assert Turned(running).order("decode") == (409, "pod both-0 is of role both and keeps it")


async def test_the_same_order_again_is_answered_with_what_came_of_it_and_another_one_waits() -> None:
    async with running_pod("decode", coefficients=SLOW) as running, router(running.internal_port) as client:
        pod = Turned(running)
        status, account = pod.order("decode")
        assert (status, account["role"], account["flip"]) == (200, "decode", None), "it is that already"
        client.send(submit("a", max_tokens=40))
        await client.heard(Delta)
        first = pod.order("prefill")
        assert (first[0], first[1]["becoming"], first[1]["flip"]["in_flight_at_start"]) == (202, "prefill", 1)
        assert pod.order("prefill", grace_s=0.0)[0] == 202, "the first grace stands"
        refusal = "pod decode-0 is becoming a prefill pod; order again when it is one"
        assert pod.order("decode") == (409, refusal)
        await pod.done()
        assert (await client.ended("a")).finish_reason == "length"  # type: ignore[union-attr]
        for incarnation in ("inc-decode", pod.pod.identity.incarnation):
            status, account = pod.order("prefill", incarnation)
            assert (status, account["flip"]["done"], account["flip"]["completed"]) == (200, True, 1)
        assert pod.flipping.count == 1
        assert pod.order("decode", "inc-decode")[0] == 409, "an order from before turns it no second time"


async def test_what_runs_finishes_first_and_what_comes_meanwhile_goes_elsewhere() -> None:
    async with running_pod("decode", coefficients=SLOW) as running, router(running.internal_port) as client:
        pod = Turned(running)
        client.send(submit("a", max_tokens=60))
        await client.heard(Delta)
        assert pod.order("prefill")[0] == 202
        client.send(submit("b"))
        refused = await client.ended("b")
        assert isinstance(refused, Failed)
        assert (refused.reason, refused.retryable) == ("draining", True)
        assert refused.message == "pod decode-0 becomes a prefill pod"
        assert read(pod.probes.readyz()) == (503, "becoming a prefill pod; 1 requests are left")
        last = await client.ended("a")
        assert isinstance(last, Delta)
        assert (last.finish_reason, len(ids_of(client, "a"))) == ("length", 60)
        await pod.done()
        report = pod.flipping.last.drained if pod.flipping.last else None
        assert report is not None
        assert (report.in_flight_at_start, report.completed, report.migrated, report.lost) == (1, 1, 0, 0)


async def test_what_takes_longer_than_the_grace_can_go_on_elsewhere_and_frees_its_pages() -> None:
    async with running_pod("decode", coefficients=SLOW) as running, router(running.internal_port) as client:
        pod = Turned(running)
        client.send(submit("a", max_tokens=5000))
        await client.heard(Delta)
        flip = await pod.turn("prefill", grace_s=0.1)
        failed = await client.ended("a")
        assert isinstance(failed, Failed)
        assert (failed.reason, failed.retryable) == ("draining", True)
        assert (flip.drained.migrated, flip.drained.completed) == (1, 0)
        await running.idle()


async def test_sigterm_in_the_middle_is_a_drain_of_the_role_that_it_has() -> None:
    async with running_pod("decode", coefficients=SLOW) as running, router(running.internal_port) as client:
        pod = Turned(running)
        client.send(submit("a", max_tokens=60))
        await client.heard(Delta)
        pod.order("prefill")
        await client.heard(wire.PodState, lambda state: state.becoming == "prefill")
        pod.flipping.stop()
        draining = asyncio.create_task(pod.pod.drain(20.0))
        report = await draining
        assert (report.in_flight_at_start, report.completed) == (1, 1)
        assert isinstance(await client.ended("a"), Delta)
        await asyncio.sleep(0.2)
        assert (pod.pod.identity.role, pod.pod.identity.incarnation) == ("decode", "inc-decode")
        assert pod.order("prefill") == (409, "pod decode-0 is shutting down")
        assert not pod.pod.ready


async def test_a_change_that_breaks_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_pod("decode") as running:
        ended = asyncio.Event()
        flipping = Flipping(running.pod, running.port, 1.0, on_failure=ended.set)
        monkeypatch.setattr(running.pod.sender, "renew", lambda identity: 1 / 0)
        flipping.order("prefill", "inc-decode")
        async with asyncio.timeout(5):
            await ended.wait()
        assert isinstance(flipping.failure, ZeroDivisionError)
        assert not running.pod.becoming or not running.pod.ready


async def test_hand_offs_under_way_are_completed_before_a_prefill_pod_decodes() -> None:
    async with (
        running_pod("prefill", pace=slow_link(0.02)) as running,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        pod = Turned(running)
        peer = running.peer
        client.send(submit("a", PROMPT, 8, peer))
        await until(lambda: running.pod.sender.transfers == 1)
        flip = await pod.turn("decode")
        last = await client.ended("a")
        assert isinstance(last, Delta)
        assert last.usage is not None
        assert last.usage.prefilled_here == 0, "it came from the pod that was a prefill pod to the last page"
        assert (flip.drained.in_flight_at_start, flip.drained.completed, flip.drained.migrated) == (1, 1, 0)
        # Who still names it as a prefill pod computes the prompt itself.
        ids, _, last = await client.answer(submit("b", PROMPT[::-1], 8, peer))
        assert last.usage is not None
        assert last.usage.prefilled_here == len(PROMPT)
        assert decode.pod.receiver.fallbacks == {"wrong_role": 1}
        async with router(running.internal_port) as other:
            answered, _, last = await other.answer(submit("b", PROMPT[::-1], 8))
            assert answered == ids
            answered, _, last = await other.answer(submit("a", PROMPT, 8))
        assert answered == ids_of(client, "a")
        assert last.usage is not None
        assert last.usage.cached_tokens > 0, "pages that it computed for others are its own now"
        await running.idle()


async def test_a_hand_off_that_the_grace_cuts_off_costs_time_and_no_answer() -> None:
    async with (
        running_pod("prefill", pace=slow_link(0.1)) as running,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        client.send(submit("a", PROMPT, 8, running.peer))
        await until(lambda: decode.pod.received.rx_frames > 0)
        flip = await Turned(running).turn("decode", grace_s=0.0)
        assert flip.drained.migrated == 1
        last = await client.ended("a")
        assert isinstance(last, Delta)
        assert last.usage is not None
        assert last.usage.prefilled_here > 0
        assert ids_of(client, "a") == (await client.answer(submit("alone", PROMPT, 8)))[0]
        await running.idle()
        await decode.idle()


async def test_a_prefill_pod_that_becomes_a_decode_pod_tests_its_links_first_and_leaves_out_itself() -> None:
    async with running_pod("prefill", "p0") as other, running_pod("prefill", "p1") as running:
        peers = (f"127.0.0.1:{other.pod.kv_port}", f"127.0.0.1:{running.pod.kv_port}")
        running.pod._kv_settings = KvSettings(peers=peers)
        pod = Turned(running)
        await pod.turn("decode")
        assert b"kv: p0 tcp" in pod.probes.readyz().body
        links = {link["pod"]: link for link in pod.probes.signals()["kv_link"]}
        assert (links["p0"]["preflight"], links["p1"]["connected"]) == ("ok", False)
        assert (len(links), links["p1"]["last_error"]) == (2, "it is this pod itself")
        await pod.turn("prefill")
        assert pod.probes.signals()["kv_link"] == []
        await until(lambda: not other.pod.sender.connections)


async def test_links_to_pods_that_became_decode_pods_are_told_and_not_used() -> None:
    async with running_pod("prefill", "p0") as running:
        settings = KvSettings(peers=(f"127.0.0.1:{running.pod.kv_port}",))
        async with running_pod("decode", kv_settings=settings) as decode:
            await Turned(running).turn("decode")
            decode.pod.preflight.start()
            await until(lambda: decode.pod.ready)
            assert decode.pod.preflight.words() == "p0: it is a decode pod now"
            assert not decode.pod.receiver.links.connected


async def test_what_comes_late_on_a_connection_to_the_old_pod_is_not_the_new_one_s_work() -> None:
    async with running_pod("prefill") as running, router(running.internal_port) as client:
        await client.heard(wire.PodState)
        flip = Flip("prefill", "decode", "inc-prefill", 0.0, incarnation="new")
        client.send(submit("late", max_tokens=4))
        running.port.part()
        running.pod.take_role(flip)
        await until(lambda: client.closed)
        assert running.pod.engine.engine.scheduler.counters.added == 0
        assert not running.pod.sessions()
        assert running.port.ledger.leases == {}
