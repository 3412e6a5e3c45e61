"""AIBrix APA's rule: use over target with a tolerance of its own up and down, bounded by a rate each way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tandem_operator.simulation.baselines.formula import Formula, Sizes
from tandem_operator.simulation.baselines.view import View


def bounded_replicas(
    current: int,
    use: float,
    target: float,
    *,
    rate_up: float = 2.0,
    rate_down: float = 2.0,
    up_tolerance: float = 0.1,
    down_tolerance: float = 0.2,
) -> int:
    """At most rate_up times and at least one rate_down-th of what is there."""
    ratio = use / target
    wanted = math.ceil(current * ratio - 1e-9)
    if ratio > 1.0 + up_tolerance:
        return min(math.ceil(rate_up * current - 1e-9), wanted)
    if ratio < 1.0 - down_tolerance:
        return max(math.floor(current / rate_down), wanted)
    return current


@dataclass(frozen=True, kw_only=True)
class BoundedRatio(Formula):
    """Decode by KV use at half (documented); prefill, for which no default is published, by requests per pod."""

    formula: ClassVar[str] = "AIBrix APA"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "kv_target": (0.2, 0.3, 0.5),
        "requests_target": (1.0, 2.0, 4.0, 8.0),
        "rate_up": (2.0, 4.0),
    }

    name: str = "bounded-ratio"
    period_s: float = 10.0
    kv_target: float = 0.5
    requests_target: float = 4.0
    rate_up: float = 2.0
    rate_down: float = 2.0
    up_tolerance: float = 0.1
    down_tolerance: float = 0.2

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""
        prefill, decode = view.prefill, view.decode
        requests = (prefill.waiting + prefill.running) / max(prefill.ready, 1)
        kv = sum(decode.kv_each) / len(decode.kv_each) if decode.kv_each else self.kv_target
        sizes = [
            bounded_replicas(
                pool.current,
                use,
                target,
                rate_up=self.rate_up,
                rate_down=self.rate_down,
                up_tolerance=self.up_tolerance,
                down_tolerance=self.down_tolerance,
            )
            for pool, use, target in (
                (prefill, requests * prefill.ready / max(prefill.current, 1), self.requests_target),
                (decode, kv * decode.ready / max(decode.current, 1), self.kv_target),
            )
        ]
        return Sizes(sizes[0], sizes[1], state, f"{requests:.1f} requests per prefill pod, decode KV at {kv:.0%}")
