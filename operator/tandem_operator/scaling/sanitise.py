"""Observations without NaN and infinities, which JSON cannot carry: so that a record can be run again."""

from __future__ import annotations

import math

import msgspec

from tandem_operator.scaling.observation import Iteration, Observation

SUSPECT = -1.0
"""Stands for a value that is no number: impossible, finite, and JSON can carry it."""


def sanitise(observation: Observation) -> Observation:
    """The same with SUSPECT in place of NaN and infinities, which JSON cannot carry; so a record can be replayed."""
    if _is_finite(observation):
        return observation
    routers = tuple(
        msgspec.structs.replace(
            router,
            at=_finite(router.at),
            classes={
                name: msgspec.structs.replace(
                    counters,
                    prompt_tokens_squared=_finite(counters.prompt_tokens_squared),
                    output_tokens_squared=_finite(counters.output_tokens_squared),
                    **{key: SUSPECT_COUNT for key in COUNTS if not _sane(getattr(counters, key))},
                )
                for name, counters in router.classes.items()
            },
        )
        for router in observation.routers
    )
    pods = tuple(
        pod
        if pod.signals is None
        else msgspec.structs.replace(
            pod,
            signals=msgspec.structs.replace(
                pod.signals,
                at=_finite(pod.signals.at),
                iterations=tuple(_finite_step(step) for step in pod.signals.iterations),
            ),
        )
        for pod in observation.pods
    )
    return msgspec.structs.replace(observation, routers=routers, pods=pods, pods_at=_finite(observation.pods_at))


SUSPECT_COUNT = -1
COUNTS = (
    "arrivals",
    "prompt_tokens",
    "cached_tokens",
    "completed",
    "output_tokens",
    "met",
    "missed",
    "shed",
    "failed",
    "cancelled",
)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else SUSPECT


def _finite_step(step: Iteration) -> Iteration:
    """No step takes SUSPECT seconds, so nothing is learned from it; it stays, as steps are counted."""
    if math.isfinite(step.seconds + step.prefill_attended):
        return step
    return msgspec.structs.replace(step, seconds=SUSPECT, prefill_attended=0.0)


def _sane(value: float) -> bool:
    return math.isfinite(value)


def _is_finite(observation: Observation) -> bool:
    total = observation.pods_at
    for router in observation.routers:
        total += router.at
        for counters in router.classes.values():
            total += counters.prompt_tokens_squared + counters.output_tokens_squared
            total += counters.arrivals + counters.prompt_tokens + counters.cached_tokens
            total += counters.completed + counters.output_tokens + counters.met + counters.missed + counters.shed
            total += counters.failed + counters.cancelled
    for pod in observation.pods:
        if pod.signals is not None:
            total += pod.signals.at
            for step in pod.signals.iterations:
                total += step.seconds + step.prefill_attended
    return math.isfinite(total)
