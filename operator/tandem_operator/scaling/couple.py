"""Both pools as one pair: bounds, fixed sizes, ratio, budget. A clamp never raises a role; it fails closed."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from tandem_operator.scaling.decision import Targets
from tandem_operator.scaling.settings import PoolSettings, Settings


class Bounded(msgspec.Struct, frozen=True):
    """A pair within its bounds, and what moved it."""

    targets: Targets
    suppressed_by: tuple[str, ...] = ()


def bounds(pool: PoolSettings) -> tuple[int, int]:
    """Fewest and most replicas while the deployment serves at all."""
    if pool.replicas is not None:
        return pool.replicas, pool.replicas
    least = max(pool.min_replicas, 1)
    return least, max(pool.max_replicas, least)


def gpus_of(settings: Settings, prefill: int, decode: int) -> int:
    """Devices of a pair."""
    return prefill * settings.prefill.gpus + decode * settings.decode.gpus


def within_bounds(settings: Settings, wanted: Targets) -> Bounded:
    """Minimum, maximum, fixed sizes, then the ratio by raising the pool that is short of it."""
    reasons: list[str] = []
    p_low, p_high = bounds(settings.prefill)
    d_low, d_high = bounds(settings.decode)
    prefill = min(max(wanted.prefill, p_low), p_high)
    decode = min(max(wanted.decode, d_low), d_high)
    for role, size, want, pool in (
        ("prefill", prefill, wanted.prefill, settings.prefill),
        ("decode", decode, wanted.decode, settings.decode),
    ):
        if pool.replicas is not None:
            reasons.append(f"{role} is fixed at {pool.replicas}")
        elif size < want:
            reasons.append(f"maxReplicas of {role} is {size}, load asks for {want}")
    if settings.min_ratio is not None and prefill < settings.min_ratio * decode:
        raised = min(_up(settings.min_ratio * decode), p_high)
        if raised > prefill:
            reasons.append(f"minRatio {settings.min_ratio:g} raises prefill from {prefill} to {raised}")
            prefill = raised
    if settings.max_ratio is not None and settings.max_ratio > 0 and prefill > settings.max_ratio * decode:
        raised = min(_up(prefill / settings.max_ratio), d_high)
        if raised > decode:
            reasons.append(f"maxRatio {settings.max_ratio:g} raises decode from {decode} to {raised}")
            decode = raised
    return Bounded(Targets(prefill, decode), tuple(reasons))


def _up(value: float) -> int:
    return int(-(-value // 1))


NOTHING = Targets(0, 0)


def within_budget(
    settings: Settings,
    wanted: Targets,
    budget: int,
    share: Callable[[int, int], float],
    current: Targets | None = None,
    keep: Targets = NOTHING,
) -> Bounded:
    """The pair within `wanted` and the budget that bears the largest share of the load, then the cheapest such.

    `share(prefill, decode)`: of the load that the pair bears, not falling in either; inf: the load is not known, and
    both shrink in proportion. No role is above `wanted`.
    Minima hold while their sum fits, else one of each, else nothing at all. `current` stays while it is as good, and
    of what it has only that goes which is above the budget or changes pools. `keep`: what may not change pools.
    """
    cost = gpus_of(settings, wanted.prefill, wanted.decode)
    if cost <= budget:
        return Bounded(wanted)
    reason = f"budget {budget} GPUs: load asks for {wanted.prefill}P + {wanted.decode}D = {cost}"
    p_low, d_low = min(bounds(settings.prefill)[0], wanted.prefill), min(bounds(settings.decode)[0], wanted.decode)
    if gpus_of(settings, p_low, d_low) > budget:
        reason += f"; the minima {p_low}P + {d_low}D do not fit"
        p_low, d_low = min(1, wanted.prefill), min(1, wanted.decode)
    if gpus_of(settings, p_low, d_low) > budget:
        return Bounded(Targets(0, 0), (f"{reason}; not even one of each fits: nothing runs",))
    low = Targets(p_low, d_low)
    kept = Targets(max(p_low, min(keep.prefill, wanted.prefill)), max(d_low, min(keep.decode, wanted.decode)))
    if gpus_of(settings, kept.prefill, kept.decode) <= budget:
        low = kept
    known = math.isfinite(share(wanted.prefill, wanted.decode))
    best = (_best if known and settings.law.couple else _shrunk)(settings, low, wanted, budget, share)
    best = _refilled(settings, best, wanted, budget, current or low)
    grows = current is not None and best.prefill >= current.prefill and best.decode >= current.decode
    if current is None or grows or not _fits(settings, low, current, wanted, budget):
        return Bounded(best, (reason,))
    if share(current.prefill, current.decode) >= (1 - settings.law.swap_gain) * share(best.prefill, best.decode):
        best = current
    return Bounded(best, (reason,))


def _best(
    settings: Settings, low: Targets, wanted: Targets, budget: int, share: Callable[[int, int], float]
) -> Targets:
    """Maximises the share; a pool that does not bind is not grown."""
    best, best_rank = low, (-1.0, 0)
    for prefill in range(low.prefill, wanted.prefill + 1):
        left = budget - prefill * settings.prefill.gpus
        most = min(wanted.decode, left // settings.decode.gpus if settings.decode.gpus > 0 else wanted.decode)
        if most < low.decode:
            break
        whole = share(prefill, most)
        decode = _fewest(prefill, low.decode, most, whole, share)
        if not _ratio_holds(settings, prefill, decode):
            whole = -0.5
        rank = (whole, -gpus_of(settings, prefill, decode))
        if rank > best_rank:
            best, best_rank = Targets(prefill, decode), rank
    return best


def _refilled(settings: Settings, best: Targets, wanted: Targets, budget: int, have: Targets) -> Targets:
    """`best`, with what there is of a pool left where the budget has room: a clamp takes no more than it must."""
    most = Targets(min(wanted.prefill, have.prefill), min(wanted.decode, have.decode))
    while True:
        missing = [
            (1 - best.prefill / max(most.prefill, 1), Targets(best.prefill + 1, best.decode)),
            (1 - best.decode / max(most.decode, 1), Targets(best.prefill, best.decode + 1)),
        ]
        fits = [
            (part, pair)
            for part, pair in missing
            if part > 0 and gpus_of(settings, *_pair(pair)) <= budget and _ratio_holds(settings, *_pair(pair))
        ]
        if not fits:
            return best
        best = max(fits, key=lambda item: item[0])[1]


def _pair(pair: Targets) -> tuple[int, int]:
    return pair.prefill, pair.decode


def _shrunk(settings: Settings, low: Targets, wanted: Targets, budget: int, _: Callable[[int, int], float]) -> Targets:
    """Both in proportion, as if neither knew of the other, or of the load."""
    part = budget / gpus_of(settings, wanted.prefill, wanted.decode)
    prefill, decode = max(int(wanted.prefill * part), low.prefill), max(int(wanted.decode * part), low.decode)
    while gpus_of(settings, prefill, decode) > budget:
        prefill, decode = (prefill - 1, decode) if prefill > low.prefill else (prefill, decode - 1)
    return Targets(prefill, decode)


def _fits(settings: Settings, low: Targets, pair: Targets, wanted: Targets, budget: int) -> bool:
    return (
        low.prefill <= pair.prefill <= wanted.prefill
        and low.decode <= pair.decode <= wanted.decode
        and gpus_of(settings, pair.prefill, pair.decode) <= budget
        and _ratio_holds(settings, pair.prefill, pair.decode)
    )


def _fewest(prefill: int, low: int, high: int, whole: float, share: Callable[[int, int], float]) -> int:
    """Fewest decode replicas that bear as much as `high` of them: a pool that does not bind is not grown."""
    while low < high:
        middle = (low + high) // 2
        if share(prefill, middle) >= whole - 1e-12:
            high = middle
        else:
            low = middle + 1
    return high


def _ratio_holds(settings: Settings, prefill: int, decode: int) -> bool:
    if settings.min_ratio is not None and prefill < settings.min_ratio * decode - 1e-9:
        return False
    return settings.max_ratio is None or prefill <= settings.max_ratio * decode + 1e-9
