"""Scenarios that ask for one mechanism of the law each: what it buys must show where it is needed, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from tandem_operator.scaling.decision import Decision
from tandem_operator.scaling.observation import Iteration, Observation
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.state import State
from tandem_operator.simulation.arrivals import Steps
from tandem_operator.simulation.demand import peak_pods
from tandem_operator.simulation.lengths import Fixed
from tandem_operator.simulation.pinned import DEVICES, LLAMA_70B_FP8_4XH100, fleet, settings
from tandem_operator.simulation.policy import Discipline, ScalingPolicy
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.scenarios import CAP_SHARE, scenario
from tandem_operator.simulation.workload import Synthetic

OPTIMISM: Final = 0.7
"""Of the time that steps really take, what the policy believes of both pools."""
JITTER: Final = 0.3
"""Sigma of the logarithm of what a told step took: other work on the host, kernels of other shapes."""
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


def jittery(quick: bool, traces: Path | None) -> Scenario:
    """For the prior: steps tell their time badly. `Jittered` makes them."""
    return scenario("S1", quick, traces)


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
    "probe-jitter": (jittery, "tandem-no-roofline"),
    "probe-cap": (capped, "tandem-no-coupling"),
    "probe-days": (working_days, "tandem-no-forecast"),
}
"""What makes the scenario, and the ablation that it is for."""


def probe(name: str, quick: bool, traces: Path | None) -> Scenario:
    """By name."""
    return replace(PROBES[name][0](quick, traces), name=name)


@dataclass(frozen=True, kw_only=True)
class Jittered:
    """A policy that is told of every engine step with an error of its own, the same at each telling."""

    policy: ScalingPolicy

    @property
    def name(self) -> str:
        """That of the policy."""
        return self.policy.name

    @property
    def discipline(self) -> Discipline:
        """That of the policy."""
        return self.policy.discipline

    @property
    def convertible(self) -> bool:
        """That of the policy."""
        return self.policy.convertible

    @property
    def period_s(self) -> float:
        """That of the policy."""
        return self.policy.period_s

    def settings(self, given: Settings) -> Settings:
        """Those of the policy."""
        return self.policy.settings(given)

    def initial(self, settings: Settings) -> State:
        """That of the policy."""
        return self.policy.initial(settings)

    def decide(self, settings: Settings, state: State, observation: Observation, now: float) -> Decision:
        """What the policy decides on what it is told."""
        pods = tuple(
            pod
            if pod.signals is None
            else msgspec.structs.replace(
                pod,
                signals=msgspec.structs.replace(pod.signals, iterations=tuple(map(_misjudged, pod.signals.iterations))),
            )
            for pod in observation.pods
        )
        return self.policy.decide(settings, state, msgspec.structs.replace(observation, pods=pods), now)


def _misjudged(step: Iteration) -> Iteration:
    seed = f"{step.sequences} {step.kv_tokens} {step.prefill_tokens} {step.seconds}"
    return msgspec.structs.replace(step, seconds=step.seconds * Random(seed).lognormvariate(0.0, JITTER))
