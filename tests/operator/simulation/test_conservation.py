"""Nothing is lost and nothing is free, whatever the pods do meanwhile; the same seed gives the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.simulation.arrivals import Steps
from tandem_operator.simulation.decode import DecodePod
from tandem_operator.simulation.fleet import Fleet
from tandem_operator.simulation.ledger import Verdict
from tandem_operator.simulation.lengths import SHORT
from tandem_operator.simulation.outcome import Outcome
from tandem_operator.simulation.prefill import PrefillPod
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenario import Metrics, Scenario, Startup
from tandem_operator.simulation.workload import Request, Synthetic

from tests.operator.simulation.fleets import Given, Planned, coefficients, scenario

SLOW = coefficients(theta=(0.005, 1e-4, 1e-9), phi=(0.01, 1e-4, 1e-7), kv_tokens=6000, max_sequences=12)


def busy(seconds: float = 30.0, **changes: object) -> Scenario:
    """Small pods, short of KV, that a few requests per second keep busy."""
    startup = Startup(0.5, 1.0, 1.5, 0.0, spread=0.3)
    workload = Synthetic(Steps(((0.0, 12.0),)), SHORT, seconds)
    return scenario(workload, (2, 2), truth=SLOW, startup=startup, tpot_s=0.05, **changes)


def counts(outcome: Outcome) -> int:
    """All ends of a request, and those without one."""
    return outcome.completed + outcome.shed + outcome.failed + outcome.in_flight


@given(
    st.lists(st.tuples(st.floats(0, 25), st.integers(0, 4), st.integers(0, 4)), max_size=8),
    st.booleans(),
    st.sampled_from([0.5, 600.0]),
    st.integers(0, 3),
)
@settings(max_examples=15)
def test_every_arrival_is_completed_shed_failed_or_in_flight_while_pods_come_go_and_are_killed(
    plan: list[tuple[float, int, int]], convertible: bool, grace_s: float, seed: int
) -> None:
    made = busy(fleet={"grace_s": grace_s, "request_timeout_s": 20.0})
    outcome = simulate(made, Planned(tuple(sorted(plan)), convertible=convertible), seed)
    assert counts(outcome) == outcome.arrivals, "and measure() has compared GPU-hours with the fluid bound"


@given(st.integers(0, 5), st.booleans())
@settings(max_examples=8)
def test_when_the_last_request_has_gone_no_pod_holds_anything(seed: int, convertible: bool) -> None:
    made = busy(20.0, end_s=300.0, fleet={"grace_s": 1.0})
    fleet = Fleet(made, seed, "deadline", convertible)
    random = Random(seed)
    for second in range(2, 40):
        fleet.events.run_until(float(second))
        fleet.supply.scale((random.randint(1, 3), random.randint(1, 3)))
    fleet.events.run_until(300.0)
    assert fleet.inside() == 0
    assert len(fleet.router.queue) == len(fleet.router) == 0
    for pod in [*fleet.prefill.pods, *fleet.decode.pods]:
        assert pod.idle
        if isinstance(pod, DecodePod):
            assert (pod.kv_used(300.0), pod.reserved, pod.expected, pod.prompt_tokens_waiting) == (0, 0, 0, 0)
        if isinstance(pod, PrefillPod):
            assert (pod.waiting_tokens, pod.requests) == (0, 0)
    assert all(verdict in (Verdict.MET, Verdict.MISSED) for verdict in fleet.ledger.verdict)


def test_a_drained_pod_loses_nothing_and_a_killed_one_has_its_requests_done_elsewhere() -> None:
    requests = tuple(Request(0.1 * index, 1000, 400) for index in range(20))
    made = scenario(Given(requests, 60.0), (2, 2))
    drained = simulate(made, Planned(((3.0, 1, 1),)), 0)
    assert (drained.completed, drained.lost_at_grace, drained.scale_downs) == (20, 0, 2)
    impatient = scenario(Given(requests, 60.0), (2, 2), fleet={"grace_s": 0.5})
    killed = simulate(impatient, Planned(((3.0, 1, 1),)), 0)
    assert killed.completed == 20
    assert killed.lost_at_grace > 0
    assert killed.gpu_h < drained.gpu_h


@pytest.mark.parametrize("discipline", ["deadline", "fifo"])
def test_gpu_hours_of_a_saturated_fleet_are_close_to_the_fluid_bound_and_never_below(discipline: str) -> None:
    requests = tuple(Request(0.01 * index, 2000, 33) for index in range(1000))
    made = scenario(Given(requests, 230.0), (1, 1), ttft_s=1e4, fleet={"request_timeout_s": 1e4})
    outcome = simulate(made, Planned(discipline=discipline), 0)  # type: ignore[arg-type]
    assert outcome.completed == 1000
    prefill_h = 1000 * 2000 * 1e-4 / 3600
    assert outcome.fluid_gpu_h == pytest.approx(prefill_h + 1000 * 32 * 0.01 / 64 / 3600, rel=0.25)
    assert prefill_h < outcome.fluid_gpu_h < outcome.gpu_h


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    made = busy(20.0, metrics=Metrics(loss=0.2, resets=0.05, nan=0.05))
    runs = [simulate(made, Planned(((5.0, 3, 3), (12.0, 1, 2))), seed) for seed in (1, 1, 2)]
    first, again, other = [msgspec.json.encode(run) for run in runs]
    assert first == again
    assert first != other


def test_the_outcome_does_not_depend_on_the_process() -> None:
    script = (
        "import hashlib, msgspec; from tests.operator.simulation.test_conservation import busy, simulate, Planned;"
        "print(hashlib.sha256(msgspec.json.encode(simulate(busy(10.0), Planned(((3., 3, 3),)), 1))).hexdigest())"
    )
    here = hashlib.sha256(msgspec.json.encode(simulate(busy(10.0), Planned(((3.0, 3, 3),)), 1))).hexdigest()
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == here, ran.stderr
