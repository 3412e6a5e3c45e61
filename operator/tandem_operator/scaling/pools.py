"""What a demand asks of both pools: sizes, what each limits, and what a given pair would attain."""

from __future__ import annotations

import math

import msgspec
from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.scaling.decision import Targets
from tandem_operator.scaling.demand import Demand
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.sizing import (
    DISPERSION_CAP,
    Batch,
    DecodeLoad,
    PrefillLoad,
    convertible_pods,
    decode_load,
    decode_misses,
    decode_pods,
    fullest_batch,
    link_pods,
    prefill_load,
    prefill_misses,
    prefill_pods,
)


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes that a rate asks for, with what they came from."""

    targets: Targets
    steady: PrefillLoad
    """Prefill at the rate of now: what the pool itself must bear."""
    burst: PrefillLoad
    """Prefill with growth, forecast and backlog: what the pool and convertible decoders must bear."""
    decode: DecodeLoad
    batch: Batch
    flexible: float
    """Prefill pods that convertible decoders stand for."""
    by_link: int
    prefill_miss: float
    decode_miss: float


def need(
    demand: Demand,
    settings: Settings,
    prefill: Coefficients,
    decode: Coefficients,
    *,
    steady_per_s: float,
    burst_per_s: float,
    backlog_per_s: float,
    tail: float = 1.0,
    helped: float = 1.0,
) -> Need:
    """`tail`: share of the allowed misses that may be used. `helped`: share of convertible capacity that counts.

    The pool can bear what waits without convertible decoders: more of them come with more load, and a pool that left
    the backlog to them would shrink as load grows.
    """
    law, mix, target = settings.law, demand.mix, demand.target
    batch = fullest_batch(decode, mix, target.tpot_s, law)
    prefill_miss = target.miss * law.prefill_miss_share * tail
    decode_miss = target.miss * law.decode_miss_share * tail
    first_step = batch.step_s
    steady = prefill_load(steady_per_s, mix, target, prefill, demand, first_step, law)
    total_per_s = burst_per_s + backlog_per_s
    burst = prefill_load(total_per_s, mix, target, prefill, demand, first_step, law)
    dispersion = min(demand.dispersion_long, DISPERSION_CAP)
    least = max(demand.flow_per_s, _piled_up(demand, batch, steady_per_s) / batch.step_s)
    held = decode_load(total_per_s, least, mix, batch, burst.wait_s, dispersion)
    by_link = link_pods(total_per_s, mix, prefill, law)
    d = max(decode_pods(held, decode_miss), link_pods(total_per_s, mix, decode, law))
    flexible = 0.0
    if settings.convertible_decode:
        full = steady_per_s * mix.output_tokens * batch.step_s / batch.sequences
        flexible = helped * convertible_pods(full, mix, batch, prefill, decode, target.tpot_s, law)
    p = max(prefill_pods(steady, prefill_miss), prefill_pods(burst, prefill_miss, flexible))
    if backlog_per_s > 0 and flexible > 0:
        waiting = prefill_load(backlog_per_s, mix, target, prefill, demand, first_step, law)
        p = max(p, prefill_pods(waiting, prefill_miss))
    return Need(
        targets=Targets(max(p, by_link), d),
        steady=steady,
        burst=burst,
        decode=held,
        batch=batch,
        flexible=flexible,
        by_link=by_link,
        prefill_miss=prefill_miss,
        decode_miss=decode_miss,
    )


def _piled_up(demand: Demand, batch: Batch, rate_per_s: float) -> float:
    """Sequences that would run if all could: Little's law with the stay that full decode pods show.

    Only while pods are full and requests wait: then stay = running / completions per second, whatever lengths say.
    Of pods that are older than the completions: young ones are full before the first of their answers can end.
    """
    if demand.completed_per_s <= 0 or demand.decoding < FULL * batch.sequences * max(demand.decode_told, 1):
        return 0.0
    return min(rate_per_s / demand.completed_per_s, PILE_MOST) * demand.decoding


FULL = 0.9
"""Share of the fullest batches above which decode pods are full."""
PILE_MOST = 2.0
"""Times what runs: when lengths just changed, completions of the last minute say little."""


def capacity_per_s(settings: Settings, need: Need, pods: Targets) -> tuple[float, float]:
    """Requests per second that the pools bear for long: prefill, decode."""
    service = need.burst.service_s
    p = pods.prefill / service if service > 0 else math.inf
    occupancy = need.decode.occupancy
    rate = need.burst.rate_per_s
    d = pods.decode * need.batch.sequences * rate / occupancy if occupancy > 0 else math.inf
    return p, d


def attainment(need: Need, pods: Targets, flexible: float = 0.0) -> float:
    """Predicted share of requests that are met by a pair at the rate of now."""
    if need.steady.erlangs <= 0:
        return 1.0
    p = prefill_misses(need.steady, pods.prefill + flexible)
    if p >= 1.0:
        p = max(1 - (pods.prefill + flexible) / need.steady.erlangs, 0.05)
    share = need.steady.rate_per_s / need.burst.rate_per_s if need.burst.rate_per_s > 0 else 1.0
    now = msgspec.structs.replace(need.decode, occupancy=need.decode.occupancy * share)
    d = decode_misses(now, pods.decode)
    return max(1 - p - d, 0.0)


def share_of_load(need: Need, prefill: int, decode: int) -> float:
    """Times the load that the pair bears: the smaller of the two pools'; inf without load; what a budget maximises.

    Above 1 is room for chance, which sizes that load asks for hold too: 1 would be busy all the time.
    """
    p = need.burst.erlangs
    d = need.decode.occupancy / need.batch.sequences
    return min(prefill / p if p > 0 else math.inf, decode / d if d > 0 else math.inf)
