"""WVA's first rule: spare KV and spare queue of the replicas that are not saturated, one replica a minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tandem_operator.simulation.baselines.formula import Formula, Sizes
from tandem_operator.simulation.baselines.hpa import HpaState, steady
from tandem_operator.simulation.baselines.view import PoolView, View


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where a replica is saturated, and the spare that asks for more."""

    kv: float = 0.80
    queue: float = 5.0
    spare_kv: float = 0.10
    spare_queue: float = 3.0


def saturation_step(kv: list[float], queue: list[float], pending: int, limits: Limits) -> int:
    """+1 if the mean spare is too small and none is pending, -1 if it is not even with one fewer."""
    if not kv:
        return 0
    spare = [
        (limits.kv - use, limits.queue - waiting)
        for use, waiting in zip(kv, queue, strict=True)
        if use < limits.kv and waiting < limits.queue
    ]
    if not spare or _short(sum(a for a, _ in spare) / len(spare), sum(b for _, b in spare) / len(spare), limits):
        return 0 if pending else 1
    if len(kv) < 2 or len(spare) < len(kv):
        return 0
    left = len(kv) - 1
    return 0 if _short(limits.kv - sum(kv) / left, limits.queue - sum(queue) / left, limits) else -1


def _short(kv: float, queue: float, limits: Limits) -> bool:
    return kv < limits.spare_kv or queue < limits.spare_queue


@dataclass(frozen=True, kw_only=True)
class Saturation(Formula):
    """Each pool by itself; an HPA follows what it asks for."""

    formula: ClassVar[str] = "WVA V1, saturation"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "limits": (Limits(), Limits(kv=0.5), Limits(kv=0.5, queue=2.0, spare_queue=1.5)),
        "period_s": (15.0, 60.0),
        "down_window_s": (0.0, 120.0, 300.0),
    }

    name: str = "saturation"
    period_s: float = 60.0
    limits: Limits = Limits()
    down_window_s: float = 300.0

    def initial(self, settings: Any) -> HpaState:
        """No recommendation yet."""
        return HpaState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""

        def wanted(pool: PoolView) -> int:
            return pool.current + saturation_step(pool.kv_each, pool.waiting_each, pool.coming, self.limits)

        return steady(view, state, wanted, self.down_window_s)
