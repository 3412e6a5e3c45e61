"""Scenarios that ask for one mechanism of the law each: what it buys must show where it is needed, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
from tandem_operator.simulation.arrivals import Steps
from tandem_operator.simulation.demand import peak_pods
from tandem_operator.simulation.lengths import Fixed
from tandem_operator.simulation.pinned import DEVICES, LLAMA_70B_FP8_4XH100, fleet, settings
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.scenarios import CAP_SHARE, scenario
from tandem_operator.simulation.workload import Synthetic

OPTIMISM: Final = 0.7
"""Of the time that steps really take, what the policy believes of both pools."""
DAY_S: Final = 86_400.0
OPEN_S, CLOSE_S, RAMP_S = 9 * 3600.0, 18 * 3600.0, 60.0
NIGHT_PER_S, BUSY_PER_S = 2.0, 16.0
RAMP_STEPS: Final = 10


def optimist(quick: bool, traces: Path | None) -> Scenario:
    """For calibration: both pools are believed 30 % faster than they are."""
    truth = LLAMA_70B_FP8_4XH100
    theta, phi = truth.prefill, truth.decode
    believed = truth.with_terms(
        type(theta)(theta.theta0_s * OPTIMISM, theta.theta1_s * OPTIMISM, theta.theta2_s * OPTIMISM),
        type(phi)(phi.phi0_s * OPTIMISM, phi.phi1_s * OPTIMISM, phi.phi2_s * OPTIMISM),
    )
    return replace(scenario("S3", quick, traces), settings=settings(believed))


def capped(quick: bool, traces: Path | None) -> Scenario:
    """For coupling: lengths shift under a cap of devices, so that one pool's pods are the other's."""
    made = scenario("S7-noflip", quick, traces)
    cap = max(2, round(CAP_SHARE * peak_pods(made))) * DEVICES
    asked = msgspec.structs.replace(made.settings, budget_gpus=cap)
    return replace(made, settings=asked, fleet=replace(made.fleet, gpus=cap))


def working_days(quick: bool, traces: Path | None) -> Scenario:
    """For the forecast: load grows eightfold within a minute each morning; the second day is reported."""
    parts = [(0.0, NIGHT_PER_S)]
    for day in range(2):
        for opens_s, before, after in ((OPEN_S, NIGHT_PER_S, BUSY_PER_S), (CLOSE_S, BUSY_PER_S, NIGHT_PER_S)):
            for step in range(1, RAMP_STEPS + 1):
                rate = before + (after - before) * step / RAMP_STEPS
                parts.append((day * DAY_S + opens_s + RAMP_S * (step - 1) / RAMP_STEPS, rate))
    ends_s = DAY_S + OPEN_S + (1800.0 if quick else 14 * 3600.0)
    made = replace(scenario("constant", quick, traces), fleet=fleet(), settings=settings())
    load = Synthetic(Steps(tuple(parts)), Fixed(8000, 100), ends_s)
    return replace(made, workload=load, report_from_s=DAY_S + OPEN_S - 1800.0, prefill_start=2, decode_start=1)


PROBES: Final[dict[str, tuple[Callable[[bool, Path | None], Scenario], str]]] = {
    "probe-optimist": (optimist, "tandem-no-calibration"),
    "probe-cap": (capped, "tandem-no-coupling"),
    "probe-days": (working_days, "tandem-no-forecast"),
}
"""What makes the scenario, and the ablation that it is for."""


def probe(name: str, quick: bool, traces: Path | None) -> Scenario:
    """By name."""
    return replace(PROBES[name][0](quick, traces), name=name)
