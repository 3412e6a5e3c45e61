"""Requests, prompt and output length of one planning interval, as measured, and their forecast for the next."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import msgspec

from tandem_operator.simulation.baselines.formula import FormulaState
from tandem_operator.simulation.baselines.predictors import PREDICTORS, Predictor, Series, remember
from tandem_operator.simulation.baselines.view import View

Counted = Literal["completions", "arrivals"]


Known = TypeVar("Known", bound="DemandState")


class DemandState(FormulaState, frozen=True):
    """One series per quantity, one value per interval."""

    rates: Series = ()
    prompts: Series = ()
    outputs: Series = ()


class Demand(NamedTuple):
    """Forecast for the next interval."""

    per_s: float
    prompt_tokens: float
    output_tokens: float
    hit_rate: float


def measure(view: View, state: Known, interval_s: float, counted: Counted) -> Known:
    """Adds the interval that ends now. An interval in which nothing answered is one without load."""
    rates = view.rates(interval_s)
    prompt, output, _ = view.lengths(interval_s)
    per_s = rates.completed if counted == "completions" else rates.arrivals
    known = rates.arrivals > 0 or rates.completed > 0
    return msgspec.structs.replace(
        state,
        rates=remember(state.rates, per_s),
        prompts=remember(state.prompts, prompt) if known else state.prompts,
        outputs=remember(state.outputs, output) if known else state.outputs,
    )


def forecast(view: View, state: DemandState, interval_s: float, predictor: Predictor) -> Demand:
    """The next interval."""
    predict = PREDICTORS[predictor]
    prompt, output, hit = view.lengths(interval_s)
    return Demand(
        predict(state.rates),
        max(predict(state.prompts), 1.0) if state.prompts else prompt,
        max(predict(state.outputs), 1.0) if state.outputs else output,
        hit,
    )
