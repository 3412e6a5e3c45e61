"""Why: the constraint that binds with its arithmetic, what would change it, and the figures behind it."""

from __future__ import annotations

from tandem_operator.scaling.decision import Bottleneck, Explanation, Targets
from tandem_operator.scaling.demand import Demand
from tandem_operator.scaling.pools import Need, attainment, capacity_per_s
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.signals import Reading
from tandem_operator.scaling.sizing import prefill_misses


def explain(
    *,
    settings: Settings,
    reading: Reading,
    demand: Demand,
    need: Need,
    wanted: Targets,
    current: Targets,
    targets: Targets,
    ready: Targets,
    reasons: tuple[str, ...],
    panic: bool,
) -> Explanation:
    """All of it, for one decision."""
    p_share, d_share = need.burst.erlangs, need.decode.occupancy / need.batch.sequences
    bottleneck = _bottleneck(settings, reading, demand, need, ready)
    binding = _binding(need, wanted, bottleneck)
    change = "" if targets == current else f" from {current.prefill}P + {current.decode}D"
    return Explanation(
        summary=f"{targets.prefill}P + {targets.decode}D{change}: {binding}" + (" (panic)" if panic else ""),
        bottleneck=bottleneck,
        binding=binding,
        would_change="",
        suppressed_by=reasons,
        wanted=wanted,
        ratio=p_share / d_share if d_share > 0 else 0.0,
        attainment_predicted=attainment(need, targets, need.flexible),
        facts=facts(demand, need, reading),
    )


def _bottleneck(settings: Settings, reading: Reading, demand: Demand, need: Need, ready: Targets) -> Bottleneck:
    if demand.now_per_s <= 0:
        return "None"
    prefill, decode = capacity_per_s(settings, need, ready)
    if need.by_link > need.targets.prefill - 1 and need.by_link > need.burst.erlangs:
        return "KVLink"
    if min(prefill, decode) >= demand.now_per_s:
        return "Queue" if reading.queue_requests > demand.now_per_s * demand.target.ttft_s else "None"
    return "Prefill" if prefill <= decode else "Decode"


def _binding(need: Need, wanted: Targets, bottleneck: Bottleneck) -> str:
    load, size = need.burst, need.targets.prefill
    if load.erlangs <= 0:
        return "no load"
    at, below = prefill_misses(load, size + need.flexible), prefill_misses(load, max(size - 1, 0) + need.flexible)
    return (
        f"prefill tail: P(W>{load.wait_s:.2g} s)={below:.2g} at P={size - 1}, {at:.2g} at P={size}, "
        f"allowed {need.prefill_miss:.2g}; decode: {need.decode.occupancy:.0f} sequences, "
        f"{need.batch.sequences} per pod ({need.batch.limit})"
    )


def facts(demand: Demand, need: Need, reading: Reading) -> dict[str, float]:
    """Inputs by name and unit."""
    return {
        "arrivals_per_s": demand.now_per_s,
        "arrivals_fast_per_s": demand.fast_per_s,
        "arrivals_slow_per_s": demand.slow_per_s,
        "plan_per_s": demand.plan_per_s,
        "growth": demand.growth,
        "lead_s": demand.lead_s,
        "dispersion_2s": demand.dispersion_short,
        "dispersion_10s": demand.dispersion_long,
        "prompt_tokens": demand.mix.prompt_tokens,
        "output_tokens": demand.mix.output_tokens,
        "queue_requests": float(reading.queue_requests),
        "salvageable": demand.salvageable,
        "late": demand.late,
        "prefill_service_s": need.burst.service_s,
        "prefill_erlangs": need.steady.erlangs,
        "decode_sequences": need.decode.occupancy,
        "batch_sequences": float(need.batch.sequences),
        "convertible_pods": need.flexible,
    }
