"""Real pods that take the other role while clients stream: every answer whole and right, no process started anew."""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import urllib.request
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tandem_runtime.contracts.pod_protocol import Delta
from tandem_runtime.models.make_model import make_model

from tests.bench.chaos_parts.bank import draw_asks, emulated_executor, make_bank, torch_executor
from tests.bench.chaos_parts.fleet import Fleet, Plan
from tests.bench.chaos_parts.tally import Tally
from tests.bench.chaos_parts.trials import Trial, flip, run_trial
from tests.processes.flips import Ask, Turning, turning
from tests.processes.pods import PodProcess, pods
from tests.runtime.server.pods import router, submit

TELLS = "Tell me something about a pod that became another one. "
ASKS = {
    "emulated": [Ask(f"{number} {TELLS * (1 + 2 * number)}", 40 + 10 * number) for number in range(6)],
    "torch": [Ask(f"{number} {TELLS * (1 + 2 * number)}", 40 + 15 * number) for number in range(6)],
}
"""Emulated: with the coefficients of chaos, prompts of up to 0.25 s, answers of up to 1.8 s."""
CLIENTS = {"emulated": 8, "torch": 4}
ROUNDS = {"emulated": 1, "torch": 0}
"""Idle, and under streams that may finish: real weights are slow to load, and change roles in no other way."""
DRAIN_CUT_SECONDS = 0.2


async def back_and_forth(fleet: Turning, rounds: int, **more: Any) -> dict[str, list[Any]]:
    """Accounts by direction."""
    found: dict[str, list[Any]] = {"decode to prefill": [], "prefill to decode": []}
    for _ in range(rounds):
        for name, role in (
            ("decode-1", "prefill"),
            ("decode-1", "decode"),
            ("prefill-1", "decode"),
            ("prefill-1", "prefill"),
        ):
            account = await fleet.flip(name, role, **more)
            found[f"{account['from']} to {account['to']}"].append(account)
    return found


def tell(what: str, found: dict[str, list[Any]]) -> None:
    """Seconds, for whoever runs this with -s."""
    for way, accounts in found.items():
        for figure in ("seconds", "told_s"):
            seconds = [account[figure] for account in accounts]
            moved, inside = (sum(each[key] for each in accounts) for key in ("migrated", "in_flight_at_start"))
            print(
                f"{what}, {way}, {'until ready' if figure == 'seconds' else 'until the router uses it'}: "
                f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s of {len(seconds)}; "
                f"{inside} requests inside, {moved} of them moved"
            )


@pytest.mark.parametrize("executor", ["emulated", "torch"])
async def test_pods_flip_under_load_and_every_stream_ends_whole_and_right(tmp_path: Path, executor: str) -> None:
    flags = [*emulated_executor(tmp_path)]
    if executor == "torch":
        make_model(tmp_path / "tiny")
        flags = [*torch_executor(tmp_path / "tiny")]
    async with turning(tmp_path, *flags) as fleet:
        await fleet.learn(ASKS[executor])
        if ROUNDS[executor]:
            tell(f"{executor}, idle", await back_and_forth(fleet, ROUNDS[executor]))
        async with fleet.load(CLIENTS[executor]):
            if ROUNDS[executor]:
                tell(f"{executor}, loaded, answers finish", await back_and_forth(fleet, ROUNDS[executor]))
            cut = await back_and_forth(fleet, 1, grace_s=DRAIN_CUT_SECONDS)
            tell(f"{executor}, loaded, a grace of {DRAIN_CUT_SECONDS} s", cut)
            # Both ways at once: the pools change places.
            await asyncio.gather(fleet.flip("decode-0", "prefill"), fleet.flip("prefill-0", "decode"))
            await asyncio.gather(fleet.flip("decode-0", "decode"), fleet.flip("prefill-0", "prefill"))
        print(f"{executor}: {fleet.streams} streams, {len(fleet.problems)} not as they should be, {fleet.flips} flips")
        assert fleet.problems == []
        assert fleet.streams >= CLIENTS[executor]
        await check_books(fleet)


async def check_books(fleet: Turning) -> None:
    """Everybody has the role that it began with, holds nothing, and the router lost nothing."""
    flips = 0
    for pod in fleet.plan.pods:
        async with asyncio.timeout(20):
            while (signals := await fleet.document(pod.metrics_port))["kv_used"]:
                await asyncio.sleep(0.05)
        assert (signals["role"], signals["running"], signals["waiting"]) == (pod.role, 0, 0)
        flips += signals["flips"]
        async with fleet.session.get(f"http://127.0.0.1:{pod.metrics_port}/metrics") as answer:
            assert "tandem_engine_leaked_pages 0" in await answer.text()
    assert flips == fleet.flips, "no process was started anew meanwhile"
    told = await fleet.document(fleet.plan.metrics_port)
    assert [drain for drain in told["drains"] if drain["lost"] or not drain["done"]] == []
    assert {drain["cause"] for drain in told["drains"]} == {"flipped"}
    flipped = [each for each in told["startups"] if each["flipped_from"]]
    assert flipped
    assert all(each["flip_s"] is not None and each["ready"] is not None for each in flipped)
    totals = told["classes"]["default"]
    assert (totals["failed"], totals["shed"], totals["cancelled"], totals["refused"]) == (0, 0, 0, 0)


async def test_clients_of_two_routers_notice_nothing_of_pods_that_turn_there_and_back(tmp_path: Path) -> None:
    random = Random(7)
    executor = emulated_executor(tmp_path)
    bank = await make_bank(executor, tmp_path, draw_asks(random, 12, (150, 600), (50, 80)))
    fleet = Fleet(Plan("flip", 0, executor, "wires"), tmp_path / "fleet", random)
    trial = Trial(fleet, bank, random, Tally(), (0.8, 1.6))
    try:
        await fleet.start()
        for role in ("prefill", "decode"):
            await run_trial(trial, flip, random.choice(fleet.role(role)))
    finally:
        await fleet.close()
    assert trial.tally.problems == []
    assert (trial.tally.trials, trial.tally.streams) == (2, 18)


def post_role(pod: PodProcess, role: str) -> int:
    """Status."""
    base = f"http://127.0.0.1:{pod.ports['metrics']}"
    with urllib.request.urlopen(f"{base}/signals", timeout=5) as answer:
        incarnation = json.load(answer)["incarnation"]
    body = json.dumps({"role": role, "incarnation": incarnation}).encode()
    order = urllib.request.Request(f"{base}/role", body, {"Authorization": "Bearer secret"})
    with urllib.request.urlopen(order, timeout=5) as answer:
        return int(answer.status)


async def test_sigterm_during_a_flip_lets_the_answer_finish_and_the_log_tells_roles_as_they_were(
    tmp_path: Path,
) -> None:
    async with pods(tmp_path, "--executor", "emulated", roles=("decode",)) as (pod,):
        for role in ("prefill", "decode"):
            assert await asyncio.to_thread(post_role, pod, role) == 202
            await pod.wait_ready()
        async with router(pod.ports["internal"]) as client:
            client.send(submit("a", "hello", 300))
            await client.heard(Delta)
            assert await asyncio.to_thread(post_role, pod, "prefill") == 202
            pod.process.send_signal(signal.SIGTERM)
            last = await client.ended("a")
            assert isinstance(last, Delta)
            assert last.finish_reason == "length"
        assert await pod.process.wait() == 0
        lines: list[dict[str, Any]] = [*await pod.logs()]
        flipped = [(line["role"], line["from"], line["to"]) for line in lines if line["message"] == "flipped"]
        assert flipped == [("prefill", "decode", "prefill"), ("decode", "prefill", "decode")]
        assert lines[-1]["role"] == "decode", "the third change never came to its end"
        assert [line["completed"] for line in lines if line["message"] == "drained"] == [1]
