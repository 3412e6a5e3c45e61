"""What a pod knows and says of its links: transport, speed, trouble; and the test before it is ready."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.pod_protocol import Credits
from tandem_runtime.engine.emulated_executor import EmulatedExecutor
from tandem_runtime.server.signals import Probes
from tandem_runtime.transfer import preflight as preflight_module
from tandem_runtime.transfer.channel import Channel
from tandem_runtime.transfer.identity import KvSettings
from tandem_runtime.transfer.link_health import LinkHealth
from tandem_runtime.transfer.probe import ANSWER_SECONDS, BLOCK_BYTES, BLOCKS, LinkProbe
from tandem_runtime.transfer.ring import PREFIX

from tests.runtime.server.pods import FAST, RunningPod, router, running_pod, submit, until


def peers(*pods: RunningPod) -> KvSettings:
    return KvSettings(peers=tuple(f"127.0.0.1:{running.pod.kv_port}" for running in pods))


def asked(running: RunningPod) -> Probes:
    probes = Probes()
    probes.pod, probes.port = running.pod, running.port
    return probes


async def test_a_link_is_tested_with_real_blocks_before_the_pod_is_ready_and_everybody_can_read_the_result() -> None:
    async with running_pod("prefill") as prefill, running_pod("decode", kv_settings=peers(prefill)) as decode:
        assert not decode.pod.ready
        assert asked(decode).readyz().status == 503
        decode.pod.preflight.start()
        await until(lambda: decode.pod.ready)
        probes = asked(decode)
        ready = probes.readyz()
        assert (ready.status, b"kv: prefill-0 tcp" in ready.body) == (200, True)
        (link,) = json.loads(probes.routes()["/signals"]().body)["kv_link"]
        assert (link["pod"], link["type"], link["preflight"], link["connected"]) == ("prefill-0", "tcp", "ok", True)
        assert link["gb_per_s"] > 0
        assert link["last_seen_age_s"] < 5
        metrics = probes.routes()["/metrics"]().body.decode()
        assert 'tandem_kv_link_up{peer="prefill-0"' in metrics
        assert "tandem_kv_link_bytes_per_second{" in metrics
        assert decode.pod.state().kv_link == prefill.pod.state().kv_link == "tcp"
        (other,) = asked(prefill).signals()["kv_link"]
        assert (other["pod"], other["connected"]) == ("decode-0", True)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:8002"])
async def test_a_pod_without_a_prefill_pod_is_ready_all_the_same_and_says_so(address: str) -> None:
    async with running_pod("decode", kv_settings=KvSettings(peers=(address,))) as decode:
        decode.pod.preflight.start()
        await until(lambda: decode.pod.ready)
        words = asked(decode).readyz().body
        assert b"no prefill pod seen yet" in words or b"lost" in words
        async with router(decode.internal_port) as client:
            await client.heard(Credits, lambda lease: lease.slots > 0)
            await client.answer(submit("a", "hello", 4))


async def test_a_prefill_pod_that_comes_later_is_found_and_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_module, "LOOK_SECONDS", 0.05)
    known: list[tuple[str, int]] = []
    async with running_pod("prefill") as prefill, running_pod("decode", kv_settings=peers(prefill)) as decode:

        async def resolve(host: str, port: int) -> list[tuple[str, int]]:
            return known

        decode.pod.preflight._resolve = resolve
        decode.pod.preflight.start()
        await until(lambda: decode.pod.ready)
        assert not decode.pod.receiver.links.links
        known.append(("127.0.0.1", prefill.pod.kv_port))
        await until(lambda: any(link.preflight == "ok" for link in decode.pod.receiver.links.connected))


async def test_a_pod_that_does_not_match_is_named_with_both_hashes_where_people_look() -> None:
    other = EmulatedExecutor(msgspec.structs.replace(FAST, kv_bytes_per_token=2048))
    async with (
        running_pod("prefill", executor=other) as prefill,
        running_pod("decode", kv_settings=peers(prefill)) as decode,
    ):
        decode.pod.preflight.start()
        await until(lambda: decode.pod.ready)
        words = asked(decode).readyz().body.decode()
        hashes = [running.pod.engine.capacity.compat_hash for running in (prefill, decode)]
        assert "rejected: different model" in words
        assert all(value in words for value in hashes)
        (link,) = asked(decode).signals()["kv_link"]
        assert (link["connected"], link["rejects"]) == (False, 1)
        await until(lambda: bool(asked(prefill).signals()["kv_link"]))
        (theirs,) = asked(prefill).signals()["kv_link"]
        assert all(value in theirs["last_error"] for value in hashes)
        assert "tandem_kv_rejects_total 1" in asked(decode).routes()["/metrics"]().body.decode()


async def test_a_link_that_garbles_payloads_fails_its_test_and_is_no_second_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Channel.send_payload

    async def garble(self: Channel, message: kv.Frame | kv.Block, payload: bytes) -> None:
        await original(self, message, b"x" + payload[1:] if isinstance(message, kv.Block) else payload)

    monkeypatch.setattr(Channel, "send_payload", garble)
    async with running_pod("prefill") as prefill, running_pod("decode", kv_settings=peers(prefill)) as decode:
        decode.pod.preflight.start()
        await until(lambda: decode.pod.ready)
        assert b"a test block came damaged" in asked(decode).readyz().body
        assert decode.pod.received.probes_failed == 1
        assert not any(link.able("rev1") for link in decode.pod.receiver._links.values())


async def test_a_link_that_requests_opened_is_tested_when_they_are_through() -> None:
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        await client.answer(submit("a", "hello world " * 9, 4, prefill.peer))
        await until(lambda: any(link.preflight == "ok" for link in decode.pod.receiver.links.connected))


def test_a_test_without_an_answer_fails_in_time_and_is_tried_again_later() -> None:
    health = LinkHealth("p", "x")
    probe = LinkProbe(health)
    assert probe.due(0.0, busy=True) is None
    first = probe.due(0.0, busy=False)
    assert first is not None
    assert probe.due(ANSWER_SECONDS / 2, busy=False) is None
    assert probe.due(ANSWER_SECONDS, busy=False) is None
    assert (health.preflight, "no test block" in health.last_error) == ("failed", True)
    assert probe.take(kv.Block(first.nonce, BLOCK_BYTES, 0), True, 6.0) is None, "too late"
    again = probe.due(100.0, busy=False)
    for number in range(BLOCKS):
        assert again is not None
        again = probe.take(kv.Block(again.nonce, BLOCK_BYTES, 0), True, 100.0 + (number + 1) / 100)
    assert (again, health.preflight) == (None, "ok")
    assert health.bytes_per_second == pytest.approx(BLOCK_BYTES / 0.01)


async def test_pods_that_share_memory_use_it_and_say_so_and_others_say_why_not(tmp_path: Path) -> None:
    shared = KvSettings(shared_memory=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    prompt = "the quick brown fox " * 30
    cases = ((tmp_path, "shm", ""), (elsewhere, "tcp", "another host"), (None, "tcp", "off"))
    async with running_pod("prefill", kv_settings=shared) as prefill:
        for folder, transport, note in cases:
            async with (
                running_pod("decode", kv_settings=KvSettings(shared_memory=folder)) as decode,
                router(decode.internal_port) as client,
            ):
                _, _, last = await client.answer(submit("a", prompt, 4, prefill.peer))
                assert last.usage is not None
                assert last.usage.prefilled_here == 0
                (link,) = decode.pod.receiver.links.connected
                assert link.transport == transport
                assert note in link.transport_note
        assert [name for name in os.listdir(tmp_path) if name.startswith(PREFIX)] == [], "no name is left behind"
