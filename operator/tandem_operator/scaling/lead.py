"""How long a pod takes to become ready, as measured, and how much load grows in that time."""

from __future__ import annotations

import math
from typing import NamedTuple

from tandem_operator.scaling.bins import Windows
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.state import Startup, State

STARTUP_GAIN = 0.2
"""Weight of the newest start-up once five were seen."""
STARTUP_MAX_S = 7200.0
"""A pod that waited longer waited for a node, which says nothing about start-up."""
GROWTH_COMPARISONS = 2
"""Comparisons of load per start-up time: neighbours say nearly the same, and one jump is one event."""
GROWTH_FLOOR_PER_S = 0.05
"""Below three requests a minute, ratios are chance."""


class Starts(NamedTuple):
    """What is known of start-ups."""

    started: dict[str, Startup]
    """By warmth."""
    awaited: tuple[str, ...]
    """Pods that are not ready yet."""
    starved: tuple[str, ...]
    """Of those, pods that had to wait for devices."""


def learn_startups(state: State, observation: Observation, now: float) -> Starts:
    """A pod counts at its first readiness; from its creation, as a node may have to come first.

    From its scheduling if it was seen to wait while no device was to be had: a quota is no start-up.
    """
    started = state.started
    awaited: list[str] = []
    starved: list[str] = []
    before = set(state.awaited)
    for pod in observation.pods:
        if pod.ready_since is None:
            if pod.draining_since is None:
                awaited.append(pod.name)
                if pod.name in state.starved or (pod.scheduled is None and observation.gpus_grantable == 0):
                    starved.append(pod.name)
            continue
        if pod.name not in before:
            continue
        begun = pod.scheduled if pod.name in state.starved and pod.scheduled is not None else pod.created
        seconds = pod.ready_since - begun
        if 0 < seconds < STARTUP_MAX_S:
            started = {**started, pod.warmth: _add(started.get(pod.warmth), seconds, now)}
    return Starts(started, tuple(awaited), tuple(starved))


def _add(old: Startup | None, seconds: float, now: float) -> Startup:
    if old is None:
        return Startup(1, seconds, seconds * 0.1, now)
    gain = max(1 / (old.count + 1), STARTUP_GAIN)
    mean = old.mean_s + gain * (seconds - old.mean_s)
    return Startup(old.count + 1, mean, old.deviation_s + gain * (abs(seconds - mean) - old.deviation_s), now)


def lead_seconds(started: dict[str, Startup], settings: Settings) -> float:
    """Start-up to reckon with: of the warmth seen last; before any, what the coefficients or the law say."""
    seen = [startup for warmth, startup in started.items() if warmth != "convert"]
    if not seen:
        loads = max(settings.prefill.coefficients.load_s, settings.decode.coefficients.load_s)
        return loads if loads > 0 else settings.law.startup_prior_s
    newest = max(seen, key=lambda startup: (startup.last, startup.mean_s))
    return newest.mean_s + settings.law.startup_quantile_sigmas * 1.25 * newest.deviation_s


def learn_growth(
    state: State, windows: Windows, lead_s: float, law: Law
) -> tuple[float | None, tuple[tuple[float, float], ...]]:
    """Tracks the quantile of log(load one start-up later / load) by stochastic steps: up by q, down by 1 - q.

    One number and a handful of waiting comparisons; the quantile moves by `growth_step` per comparison.
    """
    seen = state.seen
    if seen is None or windows.covered_s < law.medium_s / 2:
        return state.growth, state.growth_due
    growth = state.growth if state.growth is not None else math.log(law.growth_prior)
    due = list(state.growth_due)
    every = max(lead_s / GROWTH_COMPARISONS, law.bin_s)
    rate = windows.medium.per_s
    while due and due[0][0] <= seen:
        _, before = due.pop(0)
        if before >= GROWTH_FLOOR_PER_S:
            above = math.log(max(rate, GROWTH_FLOOR_PER_S) / before) > growth
            growth += law.growth_step * (law.growth_quantile if above else law.growth_quantile - 1)
    if not due or seen + lead_s - due[-1][0] >= every:
        due.append((seen + lead_s, rate))
    growth = min(max(growth, 0.0), math.log(law.growth_max))
    return growth, tuple(due[-8:])
