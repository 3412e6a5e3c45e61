"""HeteroScale's rule: decode tokens per second set both pools at a fixed ratio; late ones add a share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tandem_operator.simulation.baselines.capacity import decode_rate, step_line
from tandem_operator.simulation.baselines.formula import Formula, Sizes
from tandem_operator.simulation.baselines.hpa import HpaState, ratio_replicas, steady
from tandem_operator.simulation.baselines.view import PoolView, View


@dataclass(frozen=True, kw_only=True)
class FixedRatio(Formula):
    """Decode at a share of its profiled rate; prefill follows. Latency beyond the objective adds a share."""

    formula: ClassVar[str] = "HeteroScale, decode tokens per second at a fixed ratio"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "target": (0.5, 0.6, 0.7, 0.8),
        "ratio": (0.75, 1.0, 1.5, 2.0),
        "down_window_s": (120.0, 300.0),
    }

    name: str = "fixed-ratio"
    target: float = 0.7
    ratio: float = 1.5
    """Prefill per decode replica."""
    add_share: float = 0.2
    """On latency beyond the objective, when what was asked for before is there."""
    prompt: float = 1024.0
    output: float = 256.0
    """Lengths of the profile: it is made once."""
    window_s: float = 60.0
    down_window_s: float = 300.0

    def initial(self, settings: Any) -> HpaState:
        """No recommendation yet."""
        return HpaState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""
        coefficients, tpot = view.settings.decode.coefficients, view.settings.objectives[0].tpot_s
        _, requests = decode_rate(step_line(coefficients), coefficients, tpot, self.prompt, self.output)
        told = view.rates(self.window_s).decoded_tokens
        current = view.decode.current
        size = ratio_replicas(current, told / max(current * self.target * requests * self.output, 1e-9))
        if self._slow(view) and not view.prefill.coming and not view.decode.coming:
            size = max(size, math.ceil(current * (1.0 + self.add_share) - 1e-9))
        paired = math.ceil(size * self.ratio - 1e-9)

        def wanted(pool: PoolView) -> int:
            return paired if pool is view.prefill else size

        sizes = steady(view, state, wanted, self.down_window_s)
        return sizes._replace(why=f"{told:.0f} decode tokens/s, {self.ratio:g} prefill per decode")

    def _slow(self, view: View) -> bool:
        """Mean step or mean wait beyond the objective."""
        objective = view.settings.objectives[0]
        steps = [step.seconds for step in view.decode.iterations()]
        arrivals = view.rates(self.window_s).arrivals
        wait = view.prefill.waiting / arrivals if arrivals > 0 else 0.0
        return (bool(steps) and sum(steps) / len(steps) > objective.tpot_s) or wait > objective.ttft_base_s
