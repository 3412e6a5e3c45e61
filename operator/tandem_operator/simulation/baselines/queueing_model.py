"""The queueing model of WVA: T = alpha / (1 - rho) per replica, its parameters followed by an extended Kalman filter.

Mean values, Poisson arrivals: the tail of the wait is not in it. Each pool takes its own part of the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from tandem_operator.simulation.baselines.formula import Formula, Sizes
from tandem_operator.simulation.baselines.hpa import HpaState, stabilise
from tandem_operator.simulation.baselines.view import PoolView, View

GATE: Final = 7.378
"""Normalised innovation squared from which an observation is rejected."""
Vector = tuple[float, float, float]


class Queue(msgspec.Struct, frozen=True):
    """alpha, beta, gamma in seconds, and the diagonal of their covariance relative to their squares."""

    alpha: float
    beta: float
    gamma: float
    spread: Vector = (0.25, 0.25, 0.25)


def residence_s(alpha: float, rho: float) -> float:
    """Mean time of an iteration under load."""
    return alpha / max(1.0 - rho, 1e-6)


def ttft_s(residence: float, beta: float, gamma: float, prompt: float) -> float:
    """First token: an iteration and the prompt's own work."""
    return residence + (beta + gamma) * prompt


def work_s(queue: Queue, prompt: float, output: float, decode: bool) -> float:
    """Seconds that one request occupies a replica of this pool."""
    if not decode:
        return (queue.beta + queue.gamma) * prompt
    return queue.beta * output + queue.gamma * output * (prompt + output / 2)


def latency_s(queue: Queue, per_s: float, prompt: float, output: float, decode: bool) -> float:
    """TTFT of a prefill replica, ITL of a decode replica at this rate."""
    residence = residence_s(queue.alpha, min(per_s * work_s(queue, prompt, output, decode), 0.99))
    if not decode:
        return ttft_s(residence, queue.beta, queue.gamma, prompt)
    return residence + queue.beta + queue.gamma * (prompt + output / 2)


def rate_at(queue: Queue, objective_s: float, prompt: float, output: float, decode: bool) -> float:
    """Requests per second of one replica at the objective; the smallest rate where even an idle one misses it."""
    own = latency_s(queue, 0.0, prompt, output, decode) - queue.alpha
    room = objective_s - own
    rho = 1.0 - queue.alpha / room if room > queue.alpha else 0.05
    return max(rho, 0.05) / max(work_s(queue, prompt, output, decode), 1e-9)


def follow(queue: Queue, seen_s: float, per_s: float, prompt: float, output: float, decode: bool) -> Queue:
    """One update of the filter, in relative units; rejected beyond the gate."""
    values: Vector = (queue.alpha, queue.beta, queue.gamma)
    expected = latency_s(queue, per_s, prompt, output, decode)
    slopes = []
    for index in range(3):
        moved = [value * (1.01 if index == place else 1.0) for place, value in enumerate(values)]
        slopes.append((latency_s(Queue(moved[0], moved[1], moved[2]), per_s, prompt, output, decode) - expected) / 0.01)
    spread = tuple(value + 1e-3 for value in queue.spread)
    noise = (0.2 * expected) ** 2
    total = sum(slope * slope * part for slope, part in zip(slopes, spread, strict=True)) + noise
    miss = seen_s - expected
    if miss * miss / total >= GATE:
        return queue
    gains = [slope * part / total for slope, part in zip(slopes, spread, strict=True)]
    moved = [value * min(max(1.0 + gain * miss, 0.5), 2.0) for value, gain in zip(values, gains, strict=True)]
    left = tuple(part * (1.0 - gain * slope) for part, gain, slope in zip(spread, gains, slopes, strict=True))
    return Queue(moved[0], moved[1], moved[2], (left[0], left[1], left[2]))


class QueueingState(HpaState, frozen=True):
    """The filter of each pool; None: nothing known yet."""

    queue_prefill: Queue | None = None
    queue_decode: Queue | None = None


@dataclass(frozen=True, kw_only=True)
class QueueingModel(Formula):
    """ceil(rate / rate of one replica at the objective)."""

    formula: ClassVar[str] = "WVA, queueing model"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "share": (0.7, 0.85, 1.0),
        "period_s": (15.0, 60.0),
        "down_window_s": (120.0, 300.0),
    }

    name: str = "queueing-model"
    period_s: float = 60.0
    share: float = 1.0
    """Of the modelled rate that is used."""
    down_window_s: float = 300.0
    window_s: float = 60.0

    def initial(self, settings: Any) -> QueueingState:
        """The profile, at the first decision."""
        return QueueingState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""
        prompt, output, hit = view.lengths(self.window_s)
        per_s = view.rates(self.window_s).arrivals
        objective = view.settings.objectives[0]
        ttft = objective.ttft_base_s + prompt * objective.ttft_per_thousand_tokens_s / 1000
        new = max(prompt * (1.0 - hit), 1.0)
        wait = view.prefill.waiting / per_s if per_s > 0 else 0.0
        steps = [step.seconds for step in view.prefill.iterations()]
        seen_ttft = wait + sum(steps) / len(steps) if steps else None
        steps = [step.seconds for step in view.decode.iterations()]
        seen_itl = sum(steps) / len(steps) if steps else None
        if per_s <= 0:
            return Sizes(view.prefill.current, view.decode.current, state, "no arrivals: held")
        sizes: list[int] = []
        changes: dict[str, Any] = {}
        for name, pool, length, seen, goal in (
            ("prefill", view.prefill, new, seen_ttft, ttft),
            ("decode", view.decode, prompt, seen_itl, objective.tpot_s),
        ):
            decode = name == "decode"
            queue = getattr(state, f"queue_{name}") or profile(pool, length, decode)
            if seen is not None:
                queue = follow(queue, seen, per_s / max(pool.ready, 1), length, output, decode)
            one = self.share * rate_at(queue, goal, length, output, decode)
            kept, size = stabilise(
                getattr(state, name), view.now, pool.current, math.ceil(per_s / one - 1e-9), self.down_window_s
            )
            changes |= {name: kept, f"queue_{name}": queue}
            sizes.append(size)
        after = msgspec.structs.replace(state, **changes)
        return Sizes(sizes[0], sizes[1], after, f"{per_s:.1f} requests/s over the model's rates")


def profile(pool: PoolView, prompt: float, decode: bool) -> Queue:
    """The pool's coefficients in the model's three parameters."""
    coefficients = pool.settings.coefficients
    if not decode:
        each = coefficients.prefill.theta1_s + coefficients.prefill.theta2_s * prompt / 2
        return Queue(coefficients.prefill.theta0_s, each * 0.9, each * 0.1)
    return Queue(
        coefficients.decode.phi0_s, max(coefficients.decode.phi1_s, 1e-9), max(coefficients.decode.phi2_s, 1e-12)
    )
