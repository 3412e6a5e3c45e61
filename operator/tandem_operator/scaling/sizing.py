"""Replicas that a demand needs: prefill by the tail of the wait, decode by occupancy, both by the link."""

from __future__ import annotations

import math

import msgspec
from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.scaling.demand import Demand, Mix, Target
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.queueing import normal_loss, normal_quantile, wait_tail


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
    held = mix.prompt_tokens + mix.output_tokens * 0.75
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
    sizes = mix.variability(coefficients)
    noise = []
    for seconds, dispersion in ((2.0, demand.dispersion_short), (10.0, demand.dispersion_long)):
        count = rate_per_s * seconds
        noise.append((seconds, math.sqrt((dispersion + sizes) / count) if count > 0 else 0.0))
    return PrefillLoad(
        rate_per_s=rate_per_s,
        service_s=service,
        wait_s=max(wait, WAIT_FLOOR_S),
        variability=min(demand.dispersion_short, DISPERSION_CAP) + sizes,
        noise=tuple(noise),
    )


WAIT_FLOOR_S = 0.02
"""An objective that leaves no room to wait cannot be met by more pods; it is sized as if it left this much."""
DISPERSION_CAP = 4.0
"""Above this, arrivals are not noise around a rate: the rate itself moves, which the windows reckon with."""


def prefill_misses(load: PrefillLoad, pods: float) -> float:
    """Share of requests that wait too long: the worse of the queue's tail and of what bursts leave over."""
    if load.erlangs <= 0:
        return 0.0
    whole = int(pods)
    if whole <= load.erlangs:
        return 1.0
    missed = wait_tail(whole, load.erlangs, load.service_s, load.wait_s, load.variability)
    for seconds, deviation in load.noise:
        if deviation > 0:
            room = pods * (1 + load.wait_s / seconds) / load.erlangs - 1
            missed = max(missed, deviation * normal_loss(room / deviation))
    return min(missed, 1.0)


def prefill_pods(load: PrefillLoad, miss: float, most: int = 4096) -> int:
    """Fewest pods with prefill_misses <= miss; the misses fall with every pod."""
    if load.erlangs <= 0:
        return 0
    low = int(load.erlangs) + 1
    if low >= most:
        return most
    high = low
    while high < most and prefill_misses(load, high) > miss:
        low, high = high, min(high + max(1, (high - int(load.erlangs))), most)
    while high - low > 1:
        middle = (low + high) // 2
        if prefill_misses(load, middle) > miss:
            low = middle
        else:
            high = middle
    return low if prefill_misses(load, low) <= miss else high


class DecodeLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What decode sizing works with."""

    occupancy: float
    """Mean of running sequences at the step of the fullest batch."""
    deviation: float
    batch: Batch


def decode_load(rate_per_s: float, mix: Mix, batch: Batch, dispersion: float) -> DecodeLoad:
    """Infinite servers: mean = rate x output tokens x step; dispersion I of arrivals: variance = mean (1 + I) / 2."""
    mean = rate_per_s * mix.output_tokens * batch.step_s
    return DecodeLoad(occupancy=mean, deviation=math.sqrt(mean * (1 + max(dispersion, 1.0)) / 2), batch=batch)


def decode_misses(load: DecodeLoad, pods: float) -> float:
    """Share of sequences beyond the fullest batches."""
    if load.occupancy <= 0:
        return 0.0
    room = pods * load.batch.sequences - load.occupancy
    return min(load.deviation / load.occupancy * normal_loss(room / load.deviation), 1.0) if load.deviation else 0.0


def decode_pods(load: DecodeLoad, miss: float) -> int:
    """D = ceil((m + z deviation) / n*)."""
    if load.occupancy <= 0:
        return 0
    slots = load.occupancy + normal_quantile(min(miss, 0.4)) * load.deviation
    return max(math.ceil(slots / load.batch.sequences - 1e-9), 1)


def link_pods(rate_per_s: float, mix: Mix, coefficients: Coefficients, law: Law) -> int:
    """Pods whose links together carry the KV of all prompts."""
    link = coefficients.link
    if link.bytes_per_s <= 0 or coefficients.kv_bytes_per_token <= 0 or rate_per_s <= 0:
        return 0
    busy = rate_per_s * (link.setup_s + mix.prompt_tokens * coefficients.kv_bytes_per_token / link.bytes_per_s)
    return math.ceil(busy / law.link_full - 1e-9)


def convertible_pods(
    pods: int,
    occupancy: float,
    mix: Mix,
    batch: Batch,
    prefill: Coefficients,
    decode: Coefficients,
    tpot_s: float,
    law: Law,
) -> float:
    """Prefill pods that the slack of `pods` decode pods is worth, while their steps stretch to the TPOT objective."""
    if pods <= 0 or not law.count_convertible:
        return 0.0
    step = tpot_s * (1 - law.tpot_margin)
    stretched = occupancy / batch.step_s * step / pods if batch.step_s > 0 else 0.0
    running = min(stretched, batch.sequences)
    d = decode.decode
    busy = d.phi0_s + running * (d.phi1_s + d.phi2_s * mix.context_tokens)
    spare = max(step - busy, 0.0)
    chunk = prefill.prefill.theta1_s * law.convert_tokens
    room = max(1 - stretched / batch.sequences, 0.0) if batch.sequences else 0.0
    return law.convert_worth * pods * min(spare, chunk) / step * min(1.0, 2 * room)
