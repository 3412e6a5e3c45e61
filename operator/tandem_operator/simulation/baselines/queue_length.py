"""KEDA's rule on queue length: none to one by activity, one to many by ceil(queue / target) through the HPA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from tandem_operator.simulation.baselines.formula import Formula, Sizes
from tandem_operator.simulation.baselines.hpa import HpaState, average_value_replicas, steady
from tandem_operator.simulation.baselines.view import PoolView, View


def queue_replicas(queue: float, target: float, current: int, inactive_s: float, cooldown_s: float = 300.0) -> int:
    """None only after the cooldown without activity; else at least one."""
    if queue <= 0 and inactive_s >= cooldown_s:
        return 0
    return max(average_value_replicas(current, queue, target), 1)


@dataclass(frozen=True, kw_only=True)
class QueueLength(Formula):
    """Each pool by the requests that wait for it."""

    formula: ClassVar[str] = "KEDA on queue length"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"target": (0.25, 0.5, 1.0, 2.0, 5.0), "down_window_s": (120.0, 300.0)}
    to_zero: ClassVar[bool] = True

    name: str = "queue-length"
    target: float = 2.0
    cooldown_s: float = 300.0
    down_window_s: float = 300.0

    def initial(self, settings: Any) -> HpaState:
        """No recommendation yet."""
        return HpaState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""
        inside = sum(pool.waiting + pool.running for pool in (view.prefill, view.decode))
        active_at = view.now if inside > 0 or state.active_at is None else state.active_at
        idle_s = view.now - active_at

        def wanted(pool: PoolView) -> int:
            return queue_replicas(pool.waiting, self.target, pool.current, idle_s, self.cooldown_s)

        sizes = steady(view, msgspec.structs.replace(state, active_at=active_at), wanted, self.down_window_s)
        return sizes._replace(prefill=0, decode=0) if idle_s >= self.cooldown_s else sizes
