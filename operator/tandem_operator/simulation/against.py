"""An outcome beside that of an oracle on the same load: how much more it took, how soon it had the right size."""

from __future__ import annotations

import msgspec

from tandem_operator.simulation.outcome import Outcome, Series

NEAR = 1
"""Pods of each pool by which a settled fleet may differ from the oracle's."""
HOLD_S = 60.0


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """Ratios to the oracle's figures; 1 is as good."""

    gpu_h: float
    churn: float
    goodput: float
    goodput_per_gpu_h: float
    settle_s: tuple[float | None, ...]
    """One per step of the load: until both pools are within one pod of the oracle's for a minute. None: never."""
    overshoot: float
    """Most pods at once over the oracle's most, minus 1; negative: less."""


def against(outcome: Outcome, oracle: Outcome, steps_s: tuple[float, ...] = ()) -> Against:
    """Both must be of the same scenario."""
    if (outcome.scenario, outcome.series.t_s) != (oracle.scenario, oracle.series.t_s):
        raise ValueError(f"{outcome.scenario} by {outcome.policy} and {oracle.scenario} by {oracle.policy} differ")
    limits = (*steps_s[1:], float("inf"))
    ours, theirs = outcome.series, oracle.series
    most = max(_pods(theirs), default=0)
    return Against(
        gpu_h=_ratio(outcome.gpu_h, oracle.gpu_h),
        churn=_ratio(outcome.churn, oracle.churn),
        goodput=_ratio(outcome.goodput_per_s, oracle.goodput_per_s),
        goodput_per_gpu_h=_ratio(outcome.goodput_per_gpu_h, oracle.goodput_per_gpu_h),
        settle_s=tuple(_settle(ours, theirs, step, limit) for step, limit in zip(steps_s, limits, strict=False)),
        overshoot=max(_pods(ours), default=0) / most - 1 if most else 0.0,
    )


def _pods(series: Series) -> list[int]:
    return [a + b for a, b in zip(series.prefill_pods, series.decode_pods, strict=True)]


def _settle(ours: Series, theirs: Series, step: float, limit: float) -> float | None:
    since = None
    for index, at in enumerate(ours.t_s):
        if not step <= at < limit:
            continue
        near = abs(ours.prefill_ready[index] - theirs.prefill_ready[index]) <= NEAR
        near = near and abs(ours.decode_ready[index] - theirs.decode_ready[index]) <= NEAR
        if not near:
            since = None
        elif since is None:
            since = at
        if since is not None and at - since >= HOLD_S:
            return since - step
    return None


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs if theirs else 1.0 if not ours else float("inf")
