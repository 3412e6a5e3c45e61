"""Dynamo's first planner formulas: forecast load over profiled throughput, corrected by observed over profiled latency.

The correction of prefill is min(1, .): queueing, which makes the observed latency larger, never asks for more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tandem_operator.simulation.baselines.capacity import batch_at, prompt_line, step_line
from tandem_operator.simulation.baselines.demand import Counted, DemandState, forecast, measure
from tandem_operator.simulation.baselines.formula import Formula, Sizes
from tandem_operator.simulation.baselines.predictors import Predictor
from tandem_operator.simulation.baselines.view import View


def prefill_load(requests: float, prompt: float, interval_s: float, correction: float) -> float:
    """Prompt tokens per second to plan for."""
    return requests * prompt / interval_s * min(1.0, correction)


def replicas(load: float, per_replica: float) -> int:
    """At least one."""
    return max(math.ceil(load / max(per_replica, 1e-9) - 1e-9), 1)


@dataclass(frozen=True, kw_only=True)
class ProfiledRates(Formula):
    """Every interval, both pools from the same forecast."""

    formula: ClassVar[str] = "Dynamo's first SLA planner"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "period_s": (30.0, 60.0, 180.0),
        "predictor": ("constant", "arima"),
        "counted": ("completions", "arrivals"),
    }
    keep_s: ClassVar[float] = 200.0

    name: str = "profiled-rates"
    period_s: float = 180.0
    predictor: Predictor = "arima"
    counted: Counted = "completions"
    """Upstream counts requests when they complete."""

    def initial(self, settings: Any) -> DemandState:
        """Nothing measured."""
        return DemandState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""
        state = measure(view, state, self.period_s, self.counted)
        if not view.history.rates(self.period_s).arrivals and len(state.rates) < 2:
            return Sizes(view.prefill.current, view.decode.current, state, "nothing measured yet")
        demand = forecast(view, state, self.period_s, self.predictor)
        prompt, output = demand.prompt_tokens, demand.output_tokens
        objective = view.settings.objectives[0]
        coefficients = view.settings.prefill.coefficients, view.settings.decode.coefficients
        profiled_ttft = prompt_line(coefficients[0], prompt)(prompt)
        load = prefill_load(demand.per_s * self.period_s, prompt, self.period_s, self._ttft(view, profiled_ttft))
        prefill = replicas(load, prompt / profiled_ttft)
        step, context = step_line(coefficients[1]), prompt + output / 2
        running = view.decode.running / max(view.decode.ready, 1)
        steps = [step.seconds for step in view.decode.iterations()]
        profiled_itl = step(max(running, 1.0), max(running, 1.0) * context)
        correction = sum(steps) / len(steps) / profiled_itl if steps else 1.0
        tpot = objective.tpot_s / max(correction, 1e-3)
        batch = batch_at(step, tpot, context, coefficients[1].kv_tokens, coefficients[1].max_sequences)
        decode = replicas(demand.per_s * output, batch / step(batch, batch * context))
        why = f"forecast {demand.per_s:.1f} requests/s of {prompt:.0f}/{output:.0f} tokens, ITL x{correction:.2f}"
        return Sizes(prefill, decode, state, why)

    def _ttft(self, view: View, profiled: float) -> float:
        """Observed over profiled: by Little's law, what waits over what arrives, plus the prompt itself."""
        arrivals = view.rates(self.period_s).arrivals
        wait = view.prefill.waiting / arrivals if arrivals > 0 else 0.0
        return (wait + profiled) / profiled
