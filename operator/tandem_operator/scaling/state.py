"""What the law remembers from one decision to the next. `State()` knows nothing; small, and JSON both ways."""

from __future__ import annotations

import msgspec

from tandem_operator.performance.calibration import Calibration
from tandem_operator.scaling.decision import Targets
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.observation import ClassCounters


class Bin(msgspec.Struct, frozen=True, array_like=True):
    """Arrivals and completions of one stretch of time, all routers together."""

    start: float
    seconds: float
    """Its length."""
    requests: float = 0.0
    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0
    squares: float = 0.0
    completed: float = 0.0
    output_tokens: float = 0.0
    output_squares: float = 0.0


class RouterMark(msgspec.Struct, frozen=True):
    """Where a router's counters stood when they were last added up."""

    incarnation: str
    at: float
    classes: dict[str, ClassCounters] = {}
    suspect: bool = False


class PodMark(msgspec.Struct, frozen=True, array_like=True):
    """What a pod told last."""

    incarnation: str
    at: float
    running: int = 0
    waiting: int = 0
    kv_used_tokens: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    iterations_total: int = 0


class ClassMix(msgspec.Struct, frozen=True, array_like=True):
    """One SLO class, sums over about a minute that fade."""

    requests: float = 0.0
    prompt_tokens: float = 0.0
    squares: float = 0.0
    met: float = 0.0
    counted: float = 0.0
    """Met, missed, shed and failed: what goodput is about."""


class Startup(msgspec.Struct, frozen=True, array_like=True):
    """Start-ups of one warmth: how many, mean and mean absolute deviation, seconds."""

    count: int
    mean_s: float
    deviation_s: float
    last: float
    """When the last of them became ready."""


class Predictor(msgspec.Struct, frozen=True, array_like=True):
    """How good a predictor was: comparisons, mean pinball loss."""

    count: int = 0
    loss: float = 0.0


class Season(msgspec.Struct, frozen=True):
    """The day as remembered, and the predictors' skill."""

    slots: tuple[float, ...] = ()
    """Rate by quarter of an hour of the day; -1: never seen."""
    slot: int = -1
    """Of the last look."""
    due: tuple[tuple[float, float, float, float], ...] = ()
    """(when, by trend, by yesterday, as it was)."""
    trend: Predictor = Predictor()
    day: Predictor = Predictor()
    persistence: Predictor = Predictor()
    no_trend: Predictor = Predictor()
    """Persistence, where the trend claimed otherwise."""


class PoolMemory(msgspec.Struct, frozen=True):
    """Of one pool: what was asked for lately, and what came of it."""

    ups: tuple[bool, ...] = ()
    """Of the last decisions, one more than `up_ticks`: whether they asked for more than there was."""
    peaks: tuple[tuple[float, int], ...] = ()
    """(time, replicas): sizes that were needed during a long hold, a falling sequence; the first is the largest."""
    peaks_far: tuple[tuple[float, int], ...] = ()
    """The same with a surplus on top, during a short hold."""
    removed_at: float | None = None
    removed_load: float = 0.0
    """Requests per second at the last removal."""
    hold_factor: float = 1.0


class Burst(msgspec.Struct, frozen=True, array_like=True):
    """A jump of load: when it was seen first and last, and the highest rate, requests per second."""

    at: float
    until: float
    per_s: float


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; a function of the observations so far."""

    targets: Targets | None = None
    """The last answer; None: none was given."""
    since: float | None = None
    """Start of the time that `bins` cover."""
    seen: float | None = None
    """End of it: the youngest account of a router."""
    bins: tuple[Bin, ...] = ()
    """Oldest first."""
    routers: dict[str, RouterMark] = {}
    pods: dict[str, PodMark] = {}
    mixes: dict[str, ClassMix] = {}
    started: dict[str, Startup] = {}
    """By warmth."""
    awaited: tuple[str, ...] = ()
    """Pods that were not ready at the last look: their readiness is a measurement."""
    starved: tuple[str, ...] = ()
    """Of those, pods that waited while the cluster had no device to give: that wait is none."""
    growth: float | None = None
    """Logarithm of the insured growth of load in one start-up."""
    growth_due: tuple[tuple[float, float], ...] = ()
    """(when to compare, prefill seconds per second then)."""
    noise: tuple[float, float, float] = (1.0, 1.0, 30.0)
    """Dispersion of arrivals (variance over mean of counts) in 2 s and in 10 s, and the bins it was learned from."""
    output_tokens_mean: float = 0.0
    """Tokens generated per request; 0: none seen yet."""
    output_square_mean: float = 0.0
    held_tokens: float = 0.0
    """KV that a running sequence really holds, on average lately; 0: not known."""
    flow: tuple[tuple[float, float], ...] = ()
    """(time, output tokens per second that what ran stood for), lately."""
    learned: dict[str, Calibration] = {}
    """Coefficients by role."""
    season: Season = Season()
    bursts: tuple[Burst, ...] = ()
    """Of the last half hour, oldest first."""
    prefill: PoolMemory = PoolMemory()
    decode: PoolMemory = PoolMemory()
    flipped_to: str = ""
    """The role that pods of the other one took last, "" when none did."""
    flipped_at: float = 0.0
    flipped_size: int = 0
    """Pods that it will have once they have its role: until then they are neither lacking nor yet to start."""
    panics: int = 0
    """Decisions in a row that saw too much load for what is ready."""
    panic_until: float = 0.0
    arrived_at: float | None = None
    """When something last arrived, waited or ran; from its age zero is proven."""


def after_clock(state: State, now: float, law: Law) -> State:
    """Without its times if the clock went back by a minute or more, as after another boot: they would never pass.

    What was learned stays; what was seen, held or feared is seen anew.
    """
    if state.seen is None or state.seen <= now + law.missing_s:
        return state
    return State(
        targets=state.targets,
        mixes=state.mixes,
        started={warmth: msgspec.structs.replace(known, last=0.0) for warmth, known in state.started.items()},
        growth=state.growth,
        noise=state.noise,
        output_tokens_mean=state.output_tokens_mean,
        output_square_mean=state.output_square_mean,
        held_tokens=state.held_tokens,
        learned=state.learned,
        season=msgspec.structs.replace(state.season, slot=-1, due=()),
    )
