"""The HPA's rule: replicas times metric over target, a tolerance, a rate limit up and a window of maxima down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from tandem_operator.simulation.baselines.formula import Formula, FormulaState, Sizes
from tandem_operator.simulation.baselines.history import History
from tandem_operator.simulation.baselines.view import PoolView, View

Recommendations = tuple[tuple[float, int], ...]


def ratio_replicas(current: int, ratio: float, tolerance: float = 0.1) -> int:
    """desired = ceil(current * ratio), unless the ratio is within the tolerance."""
    if abs(ratio - 1.0) <= tolerance:
        return current
    return math.ceil(current * ratio - 1e-9)


def pods_replicas(current: int, values: list[float], silent: int, coming: int, target: float, tolerance: float) -> int:
    """A metric of pods: those that tell nothing count as at target on the way down and as idle on the way up."""
    if not values:
        return current
    ratio = sum(values) / (len(values) * target)
    if abs(ratio - 1.0) <= tolerance and not coming:
        return current
    absent = silent * target if ratio < 1.0 else 0.0
    count = len(values) + silent + (coming if ratio > 1.0 else 0)
    adjusted = (sum(values) + absent) / (count * target)
    if abs(adjusted - 1.0) <= tolerance or (adjusted - 1.0) * (ratio - 1.0) < 0:
        return current
    wanted = math.ceil(adjusted * count - 1e-9)
    return max(wanted, current) if ratio > 1.0 else min(wanted, current)


def average_value_replicas(current: int, total: float, target: float, tolerance: float = 0.1) -> int:
    """A metric outside of pods with an average value: ceil(total / target)."""
    if current > 0 and abs(total / (target * current) - 1.0) <= tolerance:
        return current
    return math.ceil(total / target - 1e-9)


def step_up_limit(current: int) -> int:
    """Default behaviour up: the larger of doubling and four pods more in 15 s."""
    return max(2 * current, current + 4)


def stabilise(
    recommendations: Recommendations, now: float, current: int, wanted: int, window_s: float
) -> tuple[Recommendations, int]:
    """Down only to the largest recommendation of the window; up at once, within the rate limit."""
    kept = (*((at, size) for at, size in recommendations if at > now - window_s), (now, wanted))
    if wanted >= current:
        return kept, min(wanted, step_up_limit(max(current, 1)))
    return kept, min(current, max(size for _, size in kept))


class HpaState(FormulaState, frozen=True):
    """Recommendations of the window, per pool."""

    prefill: Recommendations = ()
    decode: Recommendations = ()
    active_at: float | None = None


def steady(view: View, state: Any, wanted: Callable[[PoolView], int], window_s: float) -> Sizes:
    """Both pools through the rate limit and the window; `state` is an HpaState."""
    raw = wanted(view.prefill), wanted(view.decode)
    first, prefill = stabilise(state.prefill, view.now, view.prefill.current, raw[0], window_s)
    second, decode = stabilise(state.decode, view.now, view.decode.current, raw[1], window_s)
    after = msgspec.structs.replace(state, prefill=first, decode=second)
    return Sizes(prefill, decode, after, f"asks for {raw[0]} and {raw[1]}, after limits {prefill}, {decode}")


@dataclass(frozen=True, kw_only=True)
class UtilisationHpa(Formula):
    """Prefill by busy share, decode by the larger share of KV and of sequences."""

    formula: ClassVar[str] = "Kubernetes HPA v2 on utilisation"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"target": (0.5, 0.6, 0.7, 0.8), "down_window_s": (120.0, 300.0)}

    name: str = "hpa-utilisation"
    target: float = 0.7
    tolerance: float = 0.1
    down_window_s: float = 300.0
    window_s: float = 60.0
    """Over which the metrics pipeline averages what pods computed."""

    def initial(self, settings: Any) -> HpaState:
        """No recommendation yet."""
        return HpaState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""

        def wanted(pool: PoolView) -> int:
            values = busy_each(view.history, pool, self.window_s) if pool is view.prefill else slots_each(pool)
            return pods_replicas(pool.current, values, pool.silent, pool.coming, self.target, self.tolerance)

        return steady(view, state, wanted, self.down_window_s)


def busy_each(history: History, pool: PoolView, window_s: float) -> list[float]:
    """Share of time in which prefill pods computed: tokens per second times the measured seconds per token."""
    if not pool.signals:
        return []
    steps = pool.iterations()
    tokens = sum(step.prefill_tokens for step in steps)
    prior = pool.settings.coefficients.prefill_seconds(1024) / 1024
    seconds_each = sum(step.seconds for step in steps) / tokens if tokens else prior
    busy = history.rates(window_s).prefilled_tokens * seconds_each / len(pool.signals)
    return [min(busy, 1.0)] * len(pool.signals)


def slots_each(pool: PoolView) -> list[float]:
    """The larger share of KV and of sequences, per decode pod."""
    return [
        max(told.kv_used_tokens / max(told.kv_total_tokens, 1), told.running / max(told.max_sequences, 1))
        for told in pool.signals
    ]


@dataclass(frozen=True, kw_only=True)
class CacheQueueHpa(Formula):
    """The larger answer of KV use per pod and of waiting requests."""

    formula: ClassVar[str] = "Kubernetes HPA v2 on KV use and queue, with llm-d's values"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "kv_target": (0.3, 0.5, 0.7),
        "queue_target": (0.5, 2.0, 5.0),
        "down_window_s": (120.0, 300.0),
    }

    name: str = "hpa-kv-queue"
    kv_target: float = 0.7
    queue_target: float = 2.0
    tolerance: float = 0.1
    down_window_s: float = 300.0

    def initial(self, settings: Any) -> HpaState:
        """No recommendation yet."""
        return HpaState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""

        def wanted(pool: PoolView) -> int:
            by_queue = average_value_replicas(pool.current, pool.waiting, self.queue_target, self.tolerance)
            by_kv = pods_replicas(pool.current, pool.kv_each, pool.silent, pool.coming, self.kv_target, self.tolerance)
            return max(by_queue, by_kv)

        return steady(view, state, wanted, self.down_window_s)
