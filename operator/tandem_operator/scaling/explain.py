"""Why: the constraint that binds with its arithmetic, what would change it, and the figures behind it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tandem_operator.scaling.couple import gpus_of
from tandem_operator.scaling.decision import Alternative, Bottleneck, Explanation, Targets
from tandem_operator.scaling.demand import Demand
from tandem_operator.scaling.pools import Need, attainment, capacity_per_s
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.signals import Reading
from tandem_operator.scaling.sizing import decode_misses, prefill_misses

SEARCH_STEPS = 9
"""Of the load at which a size changes: to a five-hundredth of the span."""
SEARCH_SPAN = 2.0
"""Loads up to this many times that of now are searched."""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision was made of."""

    settings: Settings
    reading: Reading
    demand: Demand
    need: Need
    wanted: Targets
    current: Targets
    targets: Targets
    ready: Targets
    reasons: tuple[str, ...]
    panic: bool


def explain(moment: Moment) -> Explanation:
    """All of it, for one decision."""
    need, targets, current = moment.need, moment.targets, moment.current
    p_share, d_share = need.steady.erlangs, need.decode.occupancy / need.batch.sequences
    binding = _binding(moment)
    change = "" if targets == current else f" from {current.prefill}P + {current.decode}D"
    loud = " at once, load is far beyond what is ready" if moment.panic else ""
    return Explanation(
        summary=f"{targets.prefill}P + {targets.decode}D{change}{loud}: {binding}",
        bottleneck=_bottleneck(moment),
        binding=binding,
        would_change=_would_change(moment),
        suppressed_by=moment.reasons,
        wanted=moment.wanted,
        ratio=p_share / d_share if d_share > 0 else 0.0,
        attainment_predicted=attainment(need, targets, need.flexible),
        alternatives=_alternatives(moment),
        facts=_facts(moment),
    )


def _bottleneck(moment: Moment) -> Bottleneck:
    """What would have to be larger for the load of now; None when all that is ready suffices."""
    demand, need = moment.demand, moment.need
    if demand.now_per_s <= 0:
        return "None"
    prefill, decode = capacity_per_s(moment.settings, need, moment.ready)
    if 0 < moment.ready.prefill < need.by_link and moment.ready.prefill > need.steady.erlangs:
        return "KVLink"
    if min(prefill, decode) >= demand.now_per_s:
        waiting_s = moment.reading.queue_requests / demand.now_per_s
        return "Queue" if waiting_s > demand.target.ttft_s else "None"
    return "Prefill" if prefill <= decode else "Decode"


def _binding(moment: Moment) -> str:
    need = moment.need
    if need.burst.erlangs <= 0:
        return "no load"
    return f"{_prefill_reason(need)}; {_decode_reason(need)}"


def _prefill_reason(need: Need) -> str:
    size = need.targets.prefill
    if size == need.by_link and prefill_misses(need.burst, size - 1 + need.flexible) <= need.prefill_miss:
        return f"KV link: {need.burst.rate_per_s:.3g} prompts/s need the links of {size} prefill pods"
    steady = prefill_misses(need.steady, size - 1)
    load, helped = (need.steady, 0.0) if steady > need.prefill_miss else (need.burst, need.flexible)
    below, at = prefill_misses(load, size - 1 + helped), prefill_misses(load, size + helped)
    help_text = f" with {helped:.1f} from decode" if helped > 0 else ""
    return (
        f"prefill tail{help_text}: P(W>{load.wait_s:.2g} s)={below:.2g} > {need.prefill_miss:.2g} at P={size - 1}, "
        f"{at:.2g} at P={size}"
    )


def _decode_reason(need: Need) -> str:
    size, load = need.targets.decode, need.decode
    below, at = decode_misses(load, size - 1), decode_misses(load, size)
    return (
        f"decode: {load.occupancy:.0f} sequences, {load.batch.sequences} a pod by {load.batch.limit}: "
        f"P(W>{load.wait_s:.2g} s)={below:.2g} at D={size - 1}, {at:.2g} at D={size}"
    )


def _would_change(moment: Moment) -> str:
    """The loads at which the sizes that are wanted would be others, all else equal."""
    need, rate = moment.need, moment.demand.now_per_s
    if rate <= 0:
        return "a request"
    parts = []
    for name, enough in (
        ("P", lambda times, size: _prefill_enough(need, times, size)),
        ("D", lambda times, size: _decode_enough(need, times, size)),
    ):
        size = need.targets.prefill if name == "P" else need.targets.decode
        up = _load_at(lambda times, size=size, enough=enough: enough(times, size))  # type: ignore[misc]
        down = _load_at(lambda times, size=size, enough=enough: enough(times, size - 1))  # type: ignore[misc]
        parts.append(f"{name}={size + 1} above {up * rate:.3g} requests/s")
        if size > 1:
            parts.append(f"{name}={size - 1} below {down * rate:.3g}")
    return f"now {rate:.3g} requests/s; " + ", ".join(parts)


def _prefill_enough(need: Need, times: float, size: int) -> bool:
    burst = msgspec.structs.replace(need.burst, rate_per_s=need.burst.rate_per_s * times)
    return prefill_misses(burst, size + need.flexible) <= need.prefill_miss


def _decode_enough(need: Need, times: float, size: int) -> bool:
    load = msgspec.structs.replace(need.decode, occupancy=need.decode.occupancy * times)
    return decode_misses(load, size) <= need.decode_miss


def _load_at(is_enough: Callable[[float], bool]) -> float:
    """The largest multiple of the load of now that is still enough, by bisection."""
    low, high = 0.0, SEARCH_SPAN
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        if is_enough(middle):
            low = middle
        else:
            high = middle
    return low


def _alternatives(moment: Moment) -> tuple[Alternative, ...]:
    """The neighbours of the answer, and why each is not it."""
    need, targets = moment.need, moment.targets
    if need.steady.erlangs <= 0 or targets == Targets(0, 0):
        return ()
    chosen = attainment(need, targets, need.flexible)
    found = []
    for p, d in ((-1, 0), (0, -1), (1, 0), (0, 1)):
        pair = Targets(targets.prefill + p, targets.decode + d)
        if pair.prefill < 1 or pair.decode < 1:
            continue
        share = attainment(need, pair, need.flexible)
        gpus = gpus_of(moment.settings, pair.prefill, pair.decode)
        if p + d > 0:
            why = f"{share - chosen:+.2%} attainment for {gpus - gpus_of(moment.settings, *_pair(targets))} GPUs more"
        elif share < 1 - moment.demand.target.miss:
            why = f"attains {share:.1%} of {1 - moment.demand.target.miss:.1%}"
        else:
            why = "enough for now, not for what may come"
        found.append(Alternative(prefill=pair.prefill, decode=pair.decode, attainment=share, gpus=gpus, why=why))
    return tuple(found)


def _pair(targets: Targets) -> tuple[int, int]:
    return targets.prefill, targets.decode


def _facts(moment: Moment) -> dict[str, float]:
    """Inputs by name and unit."""
    demand, need, reading = moment.demand, moment.need, moment.reading
    prefill, decode = capacity_per_s(moment.settings, need, moment.ready)
    return {
        "arrivals_per_s": demand.now_per_s,
        "arrivals_fast_per_s": demand.fast_per_s,
        "arrivals_slow_per_s": demand.slow_per_s,
        "plan_per_s": demand.plan_per_s,
        "season_per_s": demand.season_per_s,
        "growth": demand.growth,
        "lead_s": demand.lead_s,
        "dispersion_2s": demand.dispersion_short,
        "dispersion_10s": demand.dispersion_long,
        "prompt_tokens": demand.mix.prompt_tokens,
        "context_tokens": demand.mix.context_tokens,
        "new_tokens": demand.mix.new_tokens,
        "output_tokens": demand.mix.output_tokens,
        "ttft_s": demand.target.ttft_s,
        "tpot_s": demand.target.tpot_s,
        "queue_requests": float(reading.queue_requests),
        "salvageable_requests": demand.salvageable,
        "late_requests": demand.late,
        "prefill_service_s": need.burst.service_s,
        "prefill_erlangs": need.steady.erlangs,
        "prefill_capacity_per_s": min(prefill, MOST),
        "decode_capacity_per_s": min(decode, MOST),
        "decode_sequences": need.decode.occupancy,
        "decode_step_s": need.batch.step_s,
        "batch_sequences": float(need.batch.sequences),
        "convertible_pods": need.flexible,
        "attainment_ready": attainment(need, moment.ready, need.flexible),
    }


MOST = 1e9
"""JSON has no infinity."""
