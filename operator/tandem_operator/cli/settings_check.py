"""Settings that have the right types and still make no sense: said by field before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tandem_operator.scaling.settings import Objective, PoolSettings, Settings


def refuse_nonsense(settings: Settings, source: str) -> None:
    """Raises ValueError naming `source` and the first field that is wrong."""
    for field, complaint in _complaints(settings):
        raise ValueError(f"{source}: {field} {complaint}")


def _complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    for role, pool in (("prefill", settings.prefill), ("decode", settings.decode)):
        yield from _of_pool(role, pool)
    if not settings.objectives:
        yield "objectives", "is empty; the first one is the default class"
    for index, objective in enumerate(settings.objectives):
        yield from _of_objective(f"objectives[{index}]", objective)
    if settings.budget_gpus is not None and settings.budget_gpus < 0:
        yield "budget_gpus", f"is {settings.budget_gpus}; give 0 or more"
    if not settings.idle_after_s >= 0:
        yield "idle_after_s", f"is {settings.idle_after_s:g}; give 0 or more seconds"
    low, high = settings.min_ratio, settings.max_ratio
    for name, ratio in (("min_ratio", low), ("max_ratio", high)):
        if ratio is not None and not 0 < ratio < math.inf:
            yield name, f"is {ratio:g}; give prefill replicas per decode replica, above 0"
    if low is not None and high is not None and low > high:
        yield "min_ratio", f"{low:g} is above max_ratio {high:g}"


def _of_objective(place: str, objective: Objective) -> Iterator[tuple[str, str]]:
    for name in ("ttft_base_s", "tpot_s"):
        if not 0 < getattr(objective, name) < math.inf:
            yield f"{place}.{name}", f"is {getattr(objective, name):g}; give seconds above 0"
    if not 0 <= objective.ttft_per_thousand_tokens_s < math.inf:
        yield f"{place}.ttft_per_thousand_tokens_s", "is no time; give seconds, 0 or more"
    if not 0 < objective.attainment <= 1:
        yield f"{place}.attainment", f"is {objective.attainment:g}; it is a share, above 0 and at most 1"


def _of_pool(role: str, pool: PoolSettings) -> Iterator[tuple[str, str]]:
    if pool.replicas is not None and pool.replicas < 1:
        yield f"{role}.replicas", f"is {pool.replicas}; a fixed pool has 1 or more"
    if pool.min_replicas < 0:
        yield f"{role}.min_replicas", f"is {pool.min_replicas}; give 0 or more"
    if pool.max_replicas < max(pool.min_replicas, 1):
        yield f"{role}.max_replicas", f"is {pool.max_replicas}; give {max(pool.min_replicas, 1)} or more"
    if pool.gpus < 0:
        yield f"{role}.gpus", f"is {pool.gpus}; give 0 or more"
    told = pool.coefficients
    terms = {
        "coefficients.prefill.theta0_s": told.prefill.theta0_s,
        "coefficients.prefill.theta1_s": told.prefill.theta1_s,
        "coefficients.prefill.theta2_s": told.prefill.theta2_s,
        "coefficients.decode.phi0_s": told.decode.phi0_s,
        "coefficients.decode.phi1_s": told.decode.phi1_s,
        "coefficients.decode.phi2_s": told.decode.phi2_s,
        "coefficients.load_s": told.load_s,
    }
    for name, value in terms.items():
        if not 0 <= value < math.inf:
            yield f"{role}.{name}", f"is {value:g}; give seconds, 0 or more"
    if told.prefill.theta0_s + told.prefill.theta1_s == 0:
        yield f"{role}.coefficients.prefill", "makes prompts free"
    if told.decode.phi0_s + told.decode.phi1_s == 0:
        yield f"{role}.coefficients.decode", "makes steps free"
