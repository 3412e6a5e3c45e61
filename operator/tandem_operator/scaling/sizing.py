"""Replicas that a demand needs: prefill by the tail of the wait, decode by occupancy, both by the link."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.scaling.demand import Demand, Target
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.mix import Mix
from tandem_operator.scaling.queueing import normal_loss, wait_tail


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The fullest batch of a decode pod that keeps the objective."""

    sequences: int
    step_s: float
    limit: str
    """What ends it: "TPOT", "KV" or "sequences"."""


def fullest_batch(coefficients: Coefficients, mix: Mix, tpot_s: float, law: Law) -> Batch:
    """n* = max n with step(n, n context) <= (1 - margin) TPOT, n (prompt + output) <= KV, n <= max sequences."""
    d = coefficients.decode
    context = mix.context_tokens
    bound = tpot_s * (1 - law.tpot_margin)
    per_sequence = d.phi1_s + d.phi2_s * context
    by_tpot = (bound - d.phi0_s) / per_sequence if per_sequence > 0 else math.inf
    held = context + mix.output_tokens / 4
    by_kv = coefficients.kv_tokens * law.decode_full / held if coefficients.kv_tokens > 0 and held > 0 else math.inf
    by_count = coefficients.max_sequences if coefficients.max_sequences > 0 else math.inf
    best = min(by_tpot, by_kv, by_count)
    limit = "TPOT" if best == by_tpot else "KV" if best == by_kv else "sequences"
    count = max(int(min(best, 1e6)), 1)
    return Batch(sequences=count, step_s=d.phi0_s + count * per_sequence, limit=limit)


class PrefillLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What prefill sizing works with."""

    rate_per_s: float
    service_s: float
    wait_s: float
    """Longest wait that keeps TTFT."""
    variability: float
    noise: tuple[tuple[float, float], ...]
    """(window, coefficient of variation of the work in such a window)."""

    @property
    def erlangs(self) -> float:
        """Pods that would be busy all the time."""
        return self.rate_per_s * self.service_s


def prefill_load(
    rate_per_s: float,
    mix: Mix,
    target: Target,
    coefficients: Coefficients,
    demand: Demand,
    first_step_s: float,
    law: Law,
) -> PrefillLoad:
    """`first_step_s`: of the first decode step, which stands between prefill and the first token."""
    service = mix.prefill_seconds(coefficients)
    transfer = coefficients.link.setup_s
    if coefficients.link.bytes_per_s > 0:
        transfer += mix.prompt_tokens * coefficients.kv_bytes_per_token / coefficients.link.bytes_per_s
    wait = target.ttft_s - service - transfer - first_step_s - law.ttft_spare_s
    sizes = min(mix.variability(coefficients), SPREAD_MOST)
    noise = []
    for seconds, dispersion in ((2.0, demand.dispersion_short), (10.0, demand.dispersion_long)):
        count = rate_per_s * seconds
        noise.append((seconds, math.sqrt((dispersion + sizes) / count) if count > 0 else 0.0))
    return PrefillLoad(
        rate_per_s=rate_per_s,
        service_s=service,
        wait_s=max(wait, WAIT_FLOOR * service),
        variability=min(demand.dispersion_short, DISPERSION_CAP) + sizes,
        noise=tuple(noise),
    )


WAIT_FLOOR = 0.5
"""Of a prompt's own time: an objective that leaves less to wait cannot be met by more pods, and must not ask for
them without end."""
DISPERSION_CAP = 4.0
"""Above this, arrivals are not noise around a rate: the rate itself moves, which the windows reckon with."""


def prefill_misses(load: PrefillLoad, pods: float) -> float:
    """Share of requests that wait too long: the worse of the queue's tail and of what bursts leave over."""
    if load.erlangs <= 0:
        return 0.0
    if pods <= load.erlangs:
        return 1.0
    whole = int(pods)
    missed = wait_tail(whole, load.erlangs, load.service_s, load.wait_s, load.variability)
    if pods > whole:
        above = wait_tail(whole + 1, load.erlangs, load.service_s, load.wait_s, load.variability)
        missed = missed ** (1 - pods + whole) * above ** (pods - whole)
    for seconds, deviation in load.noise:
        if deviation > 0:
            room = pods * (1 + load.wait_s / seconds) / load.erlangs - 1
            missed = max(missed, deviation * normal_loss(room / deviation))
    return min(missed, 1.0)


def prefill_pods(load: PrefillLoad, miss: float, helped: float = 0.0) -> int:
    """Fewest pods that, together with `helped`, have prefill_misses <= miss; the misses fall with every pod."""
    if load.erlangs <= 0:
        return 0
    low = max(int(load.erlangs - helped), 0)
    return low + _fewest(lambda more: prefill_misses(load, low + more + helped) <= miss)


MOST_PODS = 4096
"""Where a search ends: no fleet is larger."""


def _fewest(is_enough: Callable[[int], bool]) -> int:
    """Smallest n >= 1 that is enough, when every larger one is; MOST_PODS at most. A few steps."""
    high = 1
    while high < MOST_PODS and not is_enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if is_enough(middle):
            high = middle
        else:
            low = middle
    return high


class DecodeLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What decode sizing works with. Sequences beyond the fullest batches wait in the router, as prompts do."""

    occupancy: float
    """Mean of running sequences at the step of the fullest batch."""
    batch: Batch
    stay_s: float
    """Of a sequence in its slot."""
    wait_s: float
    """Longest wait for a slot that keeps TTFT."""
    variability: float


def decode_load(
    rate_per_s: float, least_tokens_per_s: float, mix: Mix, batch: Batch, wait_s: float, dispersion: float
) -> DecodeLoad:
    """Infinite servers: mean = rate x output tokens x step, or what `least_tokens_per_s` stands for."""
    return DecodeLoad(
        occupancy=max(rate_per_s * mix.output_tokens, least_tokens_per_s) * batch.step_s,
        batch=batch,
        stay_s=mix.output_tokens * batch.step_s,
        wait_s=wait_s,
        variability=dispersion + min(mix.output_square / mix.output_tokens**2 - 1, SPREAD_MOST),
    )


SPREAD_MOST = 10.0
"""Of lengths, squared coefficient of variation: a single prompt of a million tokens is not the mix."""


def decode_misses(load: DecodeLoad, pods: float) -> float:
    """Share of sequences that wait too long for a slot: G/G/c with one server per slot."""
    slots = int(pods * load.batch.sequences)
    return wait_tail(slots, load.occupancy, load.stay_s, load.wait_s, load.variability)


def decode_pods(load: DecodeLoad, miss: float) -> int:
    """Fewest pods with decode_misses <= miss."""
    if load.occupancy <= 0:
        return 0
    low = int(load.occupancy / load.batch.sequences)
    return low + _fewest(lambda more: decode_misses(load, low + more) <= miss)


def link_pods(rate_per_s: float, mix: Mix, coefficients: Coefficients, law: Law) -> int:
    """Pods whose links together carry the KV of all prompts."""
    return math.ceil(rate_per_s * link_seconds(mix, coefficients) / law.link_full - 1e-9)


def link_seconds(mix: Mix, coefficients: Coefficients) -> float:
    """Seconds that one prompt's KV keeps a link busy; 0: the link is not known."""
    link = coefficients.link
    if link.bytes_per_s <= 0:
        return 0.0
    return link.setup_s + mix.prompt_tokens * coefficients.kv_bytes_per_token / link.bytes_per_s


def convertible_pods(
    full_pods: float, mix: Mix, batch: Batch, prefill: Coefficients, decode: Coefficients, tpot_s: float, law: Law
) -> float:
    """Prefill pods that the slack of decode pods is worth for some seconds.

    `full_pods`: decode pods that the load fills. What their step lacks to the TPOT objective can be prompt tokens, up
    to one chunk. Room that rounding up leaves is not counted: it would make prefill shrink when decode grows.
    """
    if full_pods <= 0 or not law.count_convertible:
        return 0.0
    bound_s = tpot_s * (1 - law.tpot_margin)
    spare_s = max(bound_s - batch.step_s, 0.0)
    taken_s = min(spare_s, prefill.prefill.theta1_s * law.convert_tokens)
    return law.convert_worth * full_pods * taken_s / (batch.step_s + taken_s)
