"""The scaling law: what the fleet should be now, given what is known and what was decided before.

Sees, measures, sizes both pools, bounds the pair, and moves at the pace that evidence allows. Mutates nothing.
"""

from __future__ import annotations

import math

import msgspec

from tandem_operator.scaling.bursts import learn_bursts, return_seconds
from tandem_operator.scaling.couple import Bounded, gpus_of, within_bounds, within_budget
from tandem_operator.scaling.decision import Decision, Explanation, Targets
from tandem_operator.scaling.demand import Demand, measure
from tandem_operator.scaling.explain import Moment, explain
from tandem_operator.scaling.flip import flip
from tandem_operator.scaling.forecast import learn_season
from tandem_operator.scaling.hold import hold_seconds, step
from tandem_operator.scaling.lead import lead_seconds
from tandem_operator.scaling.learn import coefficients_of
from tandem_operator.scaling.observation import Observation, Role
from tandem_operator.scaling.perceive import perceive
from tandem_operator.scaling.pools import Need, capacity_per_s, need, share_of_load
from tandem_operator.scaling.sanitise import sanitise
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.signals import Reading
from tandem_operator.scaling.state import State, after_clock


def decide(settings: Settings, state: State, observation: Observation, now: float) -> Decision:
    """Targets for both pools, the next state, and why. `now`: seconds, of the clock of the observation.

    The first answer begins with the pods of the observation: the list must have been read by then.
    """
    observation = sanitise(observation)
    state = after_clock(state, now, settings.law)
    ready = _count(observation, "prefill", True), _count(observation, "decode", True)
    current = state.targets or Targets(_count(observation, "prefill", False), _count(observation, "decode", False))
    if settings.mode == "Frozen":
        frozen = Explanation(summary="mode is Frozen: pools stay as they are", suppressed_by=("mode Frozen",))
        return Decision(current, msgspec.structs.replace(state, targets=current), frozen)
    state, reading, windows = perceive(settings, state, observation, now)
    lead_s = lead_seconds(state.started, settings)
    season, season_per_s = learn_season(state, windows, lead_s, settings.law)
    state = msgspec.structs.replace(state, season=season)
    demand = measure(state, windows, reading, settings, lead_s, season_per_s)
    state = msgspec.structs.replace(state, bursts=learn_bursts(state.bursts, demand, now, settings.law))
    asked = _needs(demand, settings, state)
    state, panic = _panic(state, asked[0], demand, settings, Targets(*ready), lead_s, now)
    wanted, down, reasons = _wanted(state, settings, observation, reading, demand, asked, current, now)
    moved = _move(state, settings, observation, reading, demand, wanted, down, current, ready, lead_s, panic, now)
    bounded = _bound(settings, observation, reading, moved[0], current, asked[0])
    targets = bounded.targets
    state = msgspec.structs.replace(moved[1], targets=targets)
    moment = Moment(
        settings=settings,
        reading=reading,
        demand=demand,
        need=asked[0],
        wanted=wanted,
        current=current,
        targets=targets,
        ready=Targets(*ready),
        reasons=(*reasons, *moved[2], *bounded.suppressed_by),
        panic=panic,
    )
    return Decision(targets, state, explain(moment))


def _count(observation: Observation, role: Role, ready: bool) -> int:
    return sum(
        pod.role == role and pod.draining_since is None and (pod.ready_since is not None or not ready)
        for pod in observation.pods
    )


def _needs(demand: Demand, settings: Settings, state: State) -> tuple[Need, Need, Need]:
    """What load asks for, and at what a removal may stop: with noise on top, and with a surplus on top.

    Both removals reckon with a smaller share of the tail and of what convertible decoders can do.
    """
    law = settings.law
    backlog = demand.backlog_per_s(law)
    prefill, decode = coefficients_of(state, settings, "prefill"), coefficients_of(state, settings, "decode")
    up = need(
        demand,
        settings,
        prefill,
        decode,
        steady_per_s=demand.now_per_s,
        burst_per_s=demand.plan_per_s,
        backlog_per_s=backlog,
    )
    noise = law.shrink_sigmas * math.sqrt(demand.now_per_s * min(demand.dispersion_long, NOISE_MOST) / law.medium_s)
    near, far = (
        need(
            demand,
            settings,
            prefill,
            decode,
            steady_per_s=rate,
            burst_per_s=max(rate * demand.growth, demand.plan_per_s),
            backlog_per_s=backlog,
            tail=law.shrink_tail,
            helped=law.shrink_flexible,
        )
        for rate in (demand.now_per_s + noise, demand.now_per_s * (1 + law.surplus) + noise)
    )
    return up, near, far


NOISE_MOST = 4.0
"""Dispersion above this is load that moves, and no removal waits for it to end."""


def _panic(
    state: State, asked: Need, demand: Demand, settings: Settings, ready: Targets, lead_s: float, now: float
) -> tuple[State, bool]:
    """Whether load is so far beyond what is ready that a second look costs more than a pod."""
    law = settings.law
    capacity = min(capacity_per_s(settings, asked, ready))
    over = demand.known and demand.now_per_s > law.panic_ratio * capacity and demand.now_per_s > 0
    panics = state.panics + 1 if over else 0
    panic = panics >= law.panic_ticks
    until = now + max(law.stable_s, lead_s) if panic else state.panic_until
    return msgspec.structs.replace(state, panics=panics, panic_until=until), panic


def _wanted(
    state: State,
    settings: Settings,
    observation: Observation,
    reading: Reading,
    demand: Demand,
    asked: tuple[Need, Need, Need],
    current: Targets,
    now: float,
) -> tuple[Targets, tuple[Targets, Targets], tuple[str, ...]]:
    """Sizes by load within bounds, sizes at which a removal may stop (near, far), and what was in the way."""
    zero = Targets(0, 0)
    idle = now - state.arrived_at if state.arrived_at is not None else 0.0
    blind = reading.blind("prefill", observation.pods) or reading.blind("decode", observation.pods)
    sleeps = settings.scale_to_zero and settings.prefill.replicas is None and settings.decode.replicas is None
    if sleeps and idle >= settings.idle_after_s and (not blind or current == zero):
        return zero, (zero, zero), (f"nothing came for {idle:.0f} s and every router says so",)
    if sleeps and current == zero and not reading.active:
        return zero, (zero, zero), ("asleep until a request comes",)
    if not demand.known:
        stay = within_bounds(settings, current)
        return stay.targets, (stay.targets, stay.targets), ("load is not known yet",)
    up = within_bounds(settings, asked[0].targets)
    near, far = (within_bounds(settings, item.targets).targets for item in asked[1:])
    return up.targets, (near, far), up.suppressed_by


def _move(
    state: State,
    settings: Settings,
    observation: Observation,
    reading: Reading,
    demand: Demand,
    wanted: Targets,
    down: tuple[Targets, Targets],
    current: Targets,
    ready: tuple[int, int],
    lead_s: float,
    panic: bool,
    now: float,
) -> tuple[Targets, State, tuple[str, ...]]:
    """One step of each pool from what it is to what is wanted."""
    law = settings.law
    if wanted == Targets(0, 0):
        return wanted, state, ()
    return_s = return_seconds(state.bursts, now, law)
    waking = current.prefill == 0 or current.decode == 0
    reasons: list[str] = []
    sizes: list[int] = []
    memories = []
    for role, pool, memory, have, up, low in (
        (
            "prefill",
            settings.prefill,
            state.prefill,
            current.prefill,
            wanted.prefill,
            (down[0].prefill, down[1].prefill),
        ),
        ("decode", settings.decode, state.decode, current.decode, wanted.decode, (down[0].decode, down[1].decode)),
    ):
        blind = reading.blind(role, observation.pods)
        frozen = "signals are stale" if blind else ""
        calibration = state.learned.get(role)
        if not frozen and calibration is not None and calibration.is_suspect:
            frozen = f"engine steps of {role} are faster than physics allows: check its hardware class"
        if not frozen and now < state.panic_until:
            frozen = f"stable for {state.panic_until - now:.0f} s more after a jump of load"
        result = step(
            memory,
            have,
            up,
            low,
            hold_s=hold_seconds(lead_s, memory, law),
            return_s=return_s,
            panic=panic or waking,
            frozen_by=frozen,
            load=demand.now_per_s,
            now=now,
            law=law,
        )
        size = pool.replicas if pool.replicas is not None else result.size
        sizes.append(size)
        memories.append(result.memory)
        if result.reason:
            reasons.append(f"{role}: {result.reason}")
    state = msgspec.structs.replace(state, prefill=memories[0], decode=memories[1])
    blinds = (reading.blind("prefill", observation.pods), reading.blind("decode", observation.pods))
    if demand.mix.turned:  # bursts and noise of the same requests are no reason to change roles: both pools want more
        urgent = Targets(*ready) if demand.late > 0 else None
        flipped = flip(settings, state, current, Targets(sizes[0], sizes[1]), down[0], blinds, now, urgent)
        return flipped.sizes, flipped.state, (*reasons, *((flipped.reason,) if flipped.reason else ()))
    return Targets(sizes[0], sizes[1]), state, tuple(reasons)


def _bound(
    settings: Settings, observation: Observation, reading: Reading, sizes: Targets, current: Targets, asked: Need
) -> Bounded:
    """Bounds once more, for what was held; then the budget, and what the cluster can still give.

    A pool whose signals are stale gives nothing to the other.
    """
    if sizes == Targets(0, 0):
        return Bounded(sizes)
    held = within_bounds(settings, sizes)
    limits = [(settings.budget_gpus, "")]
    if observation.gpus_grantable is not None:
        have = sum(
            (settings.prefill if pod.role == "prefill" else settings.decode).gpus
            for pod in observation.pods
            if pod.scheduled is not None and pod.draining_since is None
        )
        floor = within_bounds(settings, Targets(0, 0)).targets
        supply = max(
            have + max(observation.gpus_grantable, 0),
            gpus_of(settings, min(current.prefill, held.targets.prefill), min(current.decode, held.targets.decode)),
            gpus_of(settings, floor.prefill, floor.decode),
        )
        limits.append((supply, "cluster supply: "))
    keep = Targets(
        current.prefill if reading.blind("prefill", observation.pods) else 0,
        current.decode if reading.blind("decode", observation.pods) else 0,
    )
    reasons: tuple[str, ...] = ()
    targets = held.targets
    for limit, prefix in limits:
        if limit is None:
            continue
        clamped = within_budget(settings, targets, limit, lambda p, d: share_of_load(asked, p, d), current, keep)
        targets = clamped.targets
        reasons += tuple(prefix + reason for reason in clamped.suppressed_by)
    return Bounded(targets, reasons)
