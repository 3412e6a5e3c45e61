"""The scenarios of the evaluation by name, with their pinned settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
from tandem_runtime.contracts.coefficients import Coefficients, Decode, Prefill

from tandem_operator.simulation import loads
from tandem_operator.simulation.demand import peak_pods
from tandem_operator.simulation.pinned import (
    AWAKE,
    COLD,
    DEVICES,
    LLAMA_70B_FP8_4XH100,
    TTFT_SOLO_FACTOR,
    WARM,
    fleet,
    settings,
)
from tandem_operator.simulation.scenario import Metrics, Scenario, Startup
from tandem_operator.simulation.workload import Workload

NAMES: Final = (
    "S1", "S1-30s", "S1-3s", "S2", "S3", "S4", "S5", "S5-nohits", "S6", "S6-metricloss", "S6-outage", "S6-modelerror",
    "S6-gpucap", "S6-delay", "S6-day", "S7", "S7-noflip", "S8", "S9", "constant",
)  # fmt: skip
TRAINING: Final = 0.3
"""First part of a scenario that is for tuning and is not reported."""
PREFIX_CACHE_TOKENS: Final = 600_000
"""KV that a prefill pod keeps: what its memory holds."""
LOSS: Final = 0.2
OUTAGE_S: Final = 300.0
DELAY_S: Final = 15.0
PREFILL_ERROR: Final = 0.7
DECODE_ERROR: Final = 1.3
"""The policy believes prefill 30 % faster and decode 30 % slower than they are: each pool errs to its own side."""
CAP_SHARE: Final = 0.7
"""Of the devices that the peak needs."""
IDLE_AFTER_S: Final = 300.0
SPLIT: Final = ("S2", "S3", "S4")
"""Their first part is not reported. Days 1 to 3 are S6's; S5 and S9 are short and tune nothing."""


def scenario(name: str, quick: bool = False, traces: Path | None = None) -> Scenario:
    """`quick`: shorter, else the same. `traces`: folder of the published traces; without it they are imitated.

    Raises ValueError naming the scenarios.
    """
    if name not in NAMES:
        raise ValueError(f"no scenario {name!r}; there are {', '.join(NAMES)}")
    base, _, variant = name.partition("-")
    made = _base(base if base != "constant" else name, quick, traces, full_day=variant == "day")
    made = replace(made, name=name)
    if base in SPLIT:
        made = replace(made, report_from_s=TRAINING * made.until_s)
    return _vary(made, variant, quick) if variant and name != "constant" else made


def training(made: Scenario) -> Scenario:
    """The part of a scenario on which settings may be tuned; the whole of it when it has no such part."""
    return replace(made, report_from_s=0.0, end_s=made.report_from_s) if made.report_from_s else made


def _base(name: str, quick: bool, traces: Path | None, full_day: bool) -> Scenario:
    if name == "S1":
        workload, steps = loads.five_fold(quick)
        return _scenario("five times the load for a quarter of an hour", workload, steps=steps)
    if name == "S2":
        return _scenario("a sine of 3000-token prompts", loads.sine(quick))
    if name == "S3":
        return _scenario("an hour of conversations", loads.conversation(quick, traces))
    if name == "S4":
        return _scenario("ten seconds of ten times the load, and idle minutes", loads.bursts(quick))
    if name == "S5":
        made = _scenario("long prompts that share prefixes", loads.long_prompts(quick, traces), start=(6, 2))
        return replace(made, fleet=replace(made.fleet, prefix_cache_tokens=PREFIX_CACHE_TOKENS))
    if name == "S6":
        return _scenario("a production day", loads.day(quick, traces, full_day), start=(4, 2))
    if name == "S7":
        workload, steps = loads.shift(quick)
        return _scenario("lengths shift, the rate does not", workload, steps=steps)
    if name == "S8":
        workload, steps = loads.flash(quick)
        made = _scenario("idle, then a flash", workload, steps=steps, start=(1, 1))
        asked = msgspec.structs.replace(made.settings, scale_to_zero=True, idle_after_s=IDLE_AFTER_S)
        return replace(made, settings=asked)
    if name == "S9":
        return _scenario("eight minutes up and down", loads.up_and_down(quick, traces))
    return _scenario("the same load all the time", loads.constant(quick), start=(4, 3))


PINNED_START: Final = (3, 2)
"""Pods at time 0. Scenarios whose load starts higher or lower and that report from there begin with what it needs:
time 0 is no step of the load."""


def _scenario(
    describe: str, workload: Workload, start: tuple[int, int] = PINNED_START, steps: tuple[float, ...] = ()
) -> Scenario:
    return Scenario(
        name="",
        describe=describe,
        workload=workload,
        settings=settings(),
        fleet=fleet(),
        ttft_solo_factor=TTFT_SOLO_FACTOR,
        prefill_start=start[0],
        decode_start=start[1],
        steps_s=steps,
    )


def _vary(made: Scenario, variant: str, quick: bool) -> Scenario:
    starts: dict[str, Startup] = {"30s": WARM, "3s": AWAKE, "110s": COLD}
    if variant in starts:
        return replace(made, fleet=replace(made.fleet, startup=starts[variant]))
    if variant == "nohits":
        return replace(made, fleet=replace(made.fleet, prefix_cache_tokens=0))
    if variant == "metricloss":
        return replace(made, metrics=Metrics(loss=LOSS))
    if variant == "delay":
        return replace(made, metrics=Metrics(scrape_s=DELAY_S, delay_s=1.0))
    if variant == "outage":
        start = made.until_s / 2
        gap = ((start, start + (OUTAGE_S if not quick else OUTAGE_S / 2)),)
        return replace(made, metrics=Metrics(outages=gap), blind_s=gap)
    if variant == "noflip":
        asked = msgspec.structs.replace(made.settings, role_flip=False)
        return replace(made, settings=asked, fleet=replace(made.fleet, flip_s=None))
    if variant == "modelerror":
        return replace(made, settings=settings(mistaken(LLAMA_70B_FP8_4XH100)))
    if variant == "gpucap":
        cap = max(2, round(CAP_SHARE * peak_pods(made))) * DEVICES
        decode = min(made.decode_start, max(1, cap // DEVICES // 3))
        start = min(made.prefill_start, cap // DEVICES - decode)
        capped = replace(made, prefill_start=start, decode_start=decode)
        return replace(capped, settings=settings(budget_gpus=cap), fleet=replace(made.fleet, gpus=cap))
    return made


def mistaken(truth: Coefficients) -> Coefficients:
    """What a policy believes that is 30 % wrong."""
    theta, phi = truth.prefill, truth.decode
    return truth.with_terms(
        Prefill(theta.theta0_s * PREFILL_ERROR, theta.theta1_s * PREFILL_ERROR, theta.theta2_s * PREFILL_ERROR),
        Decode(phi.phi0_s * DECODE_ERROR, phi.phi1_s * DECODE_ERROR, phi.phi2_s * DECODE_ERROR),
    )
