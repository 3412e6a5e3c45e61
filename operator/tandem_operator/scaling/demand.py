"""What the fleet must be able to do: the rate that counts now, the mix of requests, and what waits already."""

from __future__ import annotations

import math

import msgspec

from tandem_operator.scaling.bins import Windows
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.mix import Mix, expected_flow, mix_of
from tandem_operator.scaling.observation import SLACK_EDGES_S
from tandem_operator.scaling.settings import Objective, Settings
from tandem_operator.scaling.signals import Reading
from tandem_operator.scaling.state import State


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The objectives as one bound, for the mix that comes."""

    ttft_s: float
    tpot_s: float
    miss: float
    """Share of requests that may miss."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Requests per second, and what stands behind them."""

    known: bool
    """False: too little was seen to say anything."""
    fast_per_s: float
    medium_per_s: float
    slow_per_s: float
    now_per_s: float
    """The rate that counts: the fast one when it is far above the medium one."""
    growth: float
    """Insurance for the time that a start-up takes."""
    season_per_s: float = 0.0
    """What the forecast expects after one start-up; 0: nothing that counts."""
    dispersion_short: float = 1.0
    dispersion_long: float = 1.0
    mix: Mix
    target: Target
    salvageable: float = 0.0
    """Waiting requests that capacity may still save."""
    late: float = 0.0
    salvage_s: float = 0.0
    """Time in which the salvageable must be served."""
    lead_s: float = 0.0
    decoding: int = 0
    """Sequences that run in `decode_told` pods."""
    decode_told: int = 0
    completed_per_s: float = 0.0
    flow_per_s: float = 0.0
    """Output tokens per second that what runs stands for; sizes decode when it is more than arrivals let expect."""

    @property
    def plan_per_s(self) -> float:
        """What the pools must bear when a pod asked for now is ready."""
        return max(self.now_per_s * self.growth, self.season_per_s)

    def backlog_per_s(self, law: Law) -> float:
        """Extra rate that works the waiting off in time."""
        extra = self.late / law.late_drain_s
        if self.salvageable > 0:
            extra += self.salvageable / max(self.salvage_s, law.drain_floor_s)
        return extra


def measure(
    state: State, windows: Windows, reading: Reading, settings: Settings, lead_s: float, season_per_s: float
) -> Demand:
    """From the arrivals of this moment and the queues."""
    law = settings.law
    known = windows.covered_s >= law.bin_s
    fast, medium, slow = windows.fast.per_s, windows.medium.per_s, windows.slow.per_s
    short, long, _ = state.noise
    deviation = math.sqrt(max(medium, 0.2) * max(short, long, 1.0) / law.fast_s)
    now = max(medium, fast) if fast > medium + law.jump_sigmas * deviation else medium
    if known and windows.covered_s < law.medium_s:
        doubt = law.doubt_sigmas * math.sqrt(now / windows.covered_s) * (1 - windows.covered_s / law.medium_s)
        now = max(now - doubt, 0.0)
    mix = mix_of(state, windows)
    salvageable, late, salvage_s = split_backlog(reading, settings, lead_s)
    growth = math.exp(state.growth if state.growth is not None else math.log(law.growth_prior))
    return Demand(
        known=known,
        fast_per_s=fast,
        medium_per_s=medium,
        slow_per_s=slow,
        now_per_s=now,
        growth=min(max(growth, 1.0), law.growth_max) if law.lead_quantile else 1.0,
        season_per_s=season_per_s if known else 0.0,
        dispersion_short=max(short, 1.0),
        dispersion_long=max(long, 1.0),
        mix=mix,
        target=target_of(settings, state, mix),
        salvageable=salvageable,
        late=late,
        salvage_s=salvage_s,
        lead_s=lead_s,
        decoding=reading.decoding if reading.queue_requests > 0 else 0,
        decode_told=reading.decode_told,
        completed_per_s=windows.medium.completed / windows.medium.seconds if windows.medium.seconds > 0 else 0.0,
        flow_per_s=expected_flow(state.flow, late > 0),
    )


def target_of(settings: Settings, state: State, mix: Mix) -> Target:
    """The strictest of the classes that come: TTFT at their mean prompt, TPOT, and what they may miss."""
    known = {objective.name: objective for objective in settings.objectives}
    default = settings.objectives[0]
    total = sum(m.requests for m in state.mixes.values())
    used: list[tuple[Objective, float]] = []
    for name, class_mix in state.mixes.items():
        if total > 0 and class_mix.requests >= MINOR_CLASS * total:
            length = class_mix.prompt_tokens / class_mix.requests
            used.append((known.get(name, default), length))
    if not used:
        used = [(default, mix.prompt_tokens)]
    return Target(
        ttft_s=min(o.ttft_base_s + o.ttft_per_thousand_tokens_s * length / 1000 for o, length in used),
        tpot_s=min(o.tpot_s for o, _ in used),
        miss=max(min(1 - o.attainment for o, _ in used), 0.0005),
    )


MINOR_CLASS = 0.01
"""A class with less than this share of requests does not set the bound for all."""


def split_backlog(reading: Reading, settings: Settings, lead_s: float) -> tuple[float, float, float]:
    """Waiting requests that new capacity can save, those it cannot, and the time that the first have.

    Pods asked for now are ready after `lead_s`: who must be served before is beyond their help, late for this purpose.
    """
    law = settings.law
    waiting = float(reading.queue_requests)
    if waiting <= 0:
        return 0.0, 0.0, 0.0
    if not law.split_backlog:
        return waiting, 0.0, settings.objectives[0].ttft_base_s
    saved, slack_sum = 0.0, 0.0
    edges = (*SLACK_EDGES_S, SLACK_EDGES_S[-1] * 2)
    for index, count in enumerate(reading.queue_slack[: len(edges)]):
        if edges[index] > max(lead_s, 0.0) and count > 0:
            saved += count
            slack_sum += count * (edges[index] - lead_s)
    saved = min(saved, waiting)
    late = 0.0 if settings.sheds_late else waiting - saved
    return saved, late, slack_sum / saved if saved > 0 else 0.0
