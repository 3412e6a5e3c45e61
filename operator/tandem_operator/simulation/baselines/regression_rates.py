"""Dynamo's second planner formulas: throughput floors every 180 s, load steps of one every 5 s, over a regression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from tandem_operator.simulation.baselines.capacity import (
    PromptLine,
    StepLine,
    decode_rate,
    fit_prompts,
    fit_steps,
    prompt_line,
    step_line,
)
from tandem_operator.simulation.baselines.demand import Counted, Demand, DemandState, forecast, measure
from tandem_operator.simulation.baselines.formula import Formula, Sizes
from tandem_operator.simulation.baselines.predictors import Predictor
from tandem_operator.simulation.baselines.view import PoolView, View


def throughput_replicas(per_s: float, engine_per_s: float) -> int:
    """ceil(forecast / one engine's rate): an engine counts as good for all of its time."""
    return max(math.ceil(per_s / max(engine_per_s, 1e-9) - 1e-9), 1)


def prefill_step(queued: list[float], own_s: float, line: PromptLine, ttft_s: float, down_share: float = 0.8) -> int:
    """+1 only if every engine's estimate exceeds; -1 only if one engine fewer keeps the queue's part in its share."""
    count = len(queued)
    if not count:
        return 0
    if all(line(tokens) + own_s > ttft_s for tokens in queued):
        return 1
    scale = count / (count - 1) if count > 1 else math.inf
    room = down_share * (ttft_s - own_s)
    return -1 if count > 1 and all(line(tokens * scale) < room for tokens in queued) else 0


def decode_step(steps_s: list[float], scaled_s: list[float], kv_scaled: list[float], tpot_s: float) -> int:
    """The same for decode, by step time and KV; `scaled` is the prediction with one engine fewer."""
    if not steps_s:
        return 0
    if all(seconds > tpot_s for seconds in steps_s):
        return 1
    fits = all(share < 1.0 for share in kv_scaled)
    return -1 if len(steps_s) > 1 and fits and all(seconds < 0.8 * tpot_s for seconds in scaled_s) else 0


class RegressionState(DemandState, frozen=True):
    """Floors of the slow loop and when it ran."""

    floor_prefill: int = 1
    floor_decode: int = 1
    slow_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class RegressionRates(Formula):
    """`slow`: the throughput loop; `fast`: the load loop; both: the slow one only sets floors."""

    formula: ClassVar[str] = "Dynamo's second planner"
    keep_s: ClassVar[float] = 200.0
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "slow_s": (30.0, 60.0, 180.0),
        "counted": ("completions", "arrivals"),
        "predictor": ("constant", "arima", "kalman"),
    }

    name: str = "hybrid-regression"
    period_s: float = 5.0
    slow: bool = True
    fast: bool = True
    slow_s: float = 180.0
    predictor: Predictor = "arima"
    counted: Counted = "completions"

    def initial(self, settings: Any) -> RegressionState:
        """Nothing measured."""
        return RegressionState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""
        due = state.slow_at is None or view.now - state.slow_at >= self.slow_s - 1e-6
        if due and self.slow:
            state = self._plan(view, state)
        prefill, decode = view.prefill, view.decode
        if not self.fast:
            return Sizes(state.floor_prefill, state.floor_decode, state, f"planned for {constant_text(state)}")
        steps = self._steps(view)
        floors = (state.floor_prefill, state.floor_decode) if self.slow else (1, 1)
        first, second = max(prefill.current + steps[0], floors[0]), max(decode.current + steps[1], floors[1])
        why = f"load steps {steps[0]:+d} and {steps[1]:+d} over floors {floors[0]} and {floors[1]}"
        return Sizes(first, second, state, why)

    def _plan(self, view: View, state: RegressionState) -> RegressionState:
        first = state.slow_at is None
        state = msgspec.structs.replace(state, slow_at=view.now)
        if first:
            return msgspec.structs.replace(state, floor_prefill=view.prefill.current, floor_decode=view.decode.current)
        state = measure(view, state, self.slow_s, self.counted)
        demand = forecast(view, state, self.slow_s, self.predictor)
        prompts, steps = lines(view, demand)
        new = demand.prompt_tokens * (1.0 - demand.hit_rate)
        objective, coefficients = view.settings.objectives[0], view.settings.decode.coefficients
        _, engine = decode_rate(steps, coefficients, objective.tpot_s, demand.prompt_tokens, demand.output_tokens)
        return msgspec.structs.replace(
            state,
            floor_prefill=throughput_replicas(demand.per_s, 1.0 / prompts(new)),
            floor_decode=throughput_replicas(demand.per_s, engine),
        )

    def _steps(self, view: View) -> tuple[int, int]:
        """Of the fast loop; each pool holds while it changes or while not every engine tells."""
        prompt, output, hit = view.lengths(self.slow_s)
        prompts, steps = lines(view, Demand(0.0, prompt, output, hit))
        objective = view.settings.objectives[0]
        ttft = objective.ttft_base_s + prompt * objective.ttft_per_thousand_tokens_s / 1000
        first = second = 0
        if _steady(view.prefill):
            first = prefill_step(view.prefill.waiting_tokens_each, prompts(prompt * (1.0 - hit)), prompts, ttft)
        if _steady(view.decode):
            told = view.decode.signals
            scale = len(told) / (len(told) - 1) if len(told) > 1 else 1.0
            second = decode_step(
                [steps(one.running, one.kv_used_tokens) for one in told],
                [steps(one.running * scale, one.kv_used_tokens * scale) for one in told],
                [share * scale for share in view.decode.kv_each],
                objective.tpot_s,
            )
        return first, second


def constant_text(state: RegressionState) -> str:
    """The last measured interval."""
    return f"{state.rates[-1]:.1f} requests/s in the last interval" if state.rates else "the start"


def lines(view: View, demand: Demand) -> tuple[PromptLine, StepLine]:
    """Regressions of the latest steps; the profile until there are enough."""
    prompts = fit_prompts(view.prefill.iterations())
    steps = fit_steps(view.decode.iterations())
    return (
        prompts or prompt_line(view.settings.prefill.coefficients, demand.prompt_tokens),
        steps or step_line(view.settings.decode.coefficients),
    )


def _steady(pool: PoolView) -> bool:
    return pool.coming == 0 and pool.draining == 0 and pool.silent == 0 and pool.ready > 0
