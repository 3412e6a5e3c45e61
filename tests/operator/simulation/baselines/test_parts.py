"""Counters, predictors, regressions and the filter that the formulas stand on."""

from __future__ import annotations

import math

import msgspec
import pytest
from tandem_operator.scaling.observation import ClassCounters, Iteration, Observation, RouterSignals
from tandem_operator.simulation.baselines.capacity import batch_at, decode_rate, fit_prompts, fit_steps, step_line
from tandem_operator.simulation.baselines.history import History, extend
from tandem_operator.simulation.baselines.predictors import arima, constant, kalman, remember
from tandem_operator.simulation.baselines.queueing_model import Queue, follow, latency_s, rate_at

from tests.operator.simulation.baselines.sights import COEFFICIENTS


def told(at: float, arrivals: int, incarnation: str = "1") -> Observation:
    counters = ClassCounters(arrivals=arrivals, prompt_tokens=100 * arrivals)
    return Observation(routers=(RouterSignals(router="r", incarnation=incarnation, at=at, classes={"a": counters}),))


def test_a_rate_is_the_increase_over_the_window() -> None:
    history = History()
    for second in range(0, 100, 10):
        history = extend(history, told(second, 5 * second if second <= 50 else 250 + 20 * (second - 50)), second, 100.0)
    assert history.rates(20.0).arrivals == pytest.approx(20.0)
    assert history.rates(1000.0).arrivals == pytest.approx((250 + 800) / 90)


def test_a_counter_that_starts_anew_loses_nothing_and_a_silence_neither() -> None:
    history = extend(History(), told(0, 100), 0.0, 100.0)
    history = extend(history, Observation(), 10.0, 100.0)
    history = extend(history, told(20, 200), 20.0, 100.0)
    history = extend(history, told(30, 50, "2"), 30.0, 100.0)
    assert history.rates(30.0).arrivals == pytest.approx(150 / 30)
    assert history.rates(30.0).prompt_tokens == pytest.approx(15000 / 30)


def test_history_keeps_no_more_than_it_is_asked_to() -> None:
    history = History()
    for second in range(500):
        history = extend(history, told(second, second), float(second), 60.0)
    assert len(history.points) <= 62


def test_predictors_start_with_the_last_value_and_follow_a_trend() -> None:
    assert constant(()) == arima(()) == kalman(()) == 0.0
    assert arima((1.0, 2.0, 4.0)) == 4.0
    line = tuple(float(value) for value in range(0, 60, 3))
    assert arima(line) == pytest.approx(60.0, rel=0.02)
    assert kalman(line) == pytest.approx(60.0, rel=0.02)
    assert kalman((7.0,) * 20) == pytest.approx(7.0)


def test_what_is_no_number_is_remembered_as_no_load() -> None:
    assert remember((5.0,), math.nan) == (5.0, 0.0)
    assert remember((5.0,), math.inf) == (5.0, 0.0)


def test_a_regression_finds_the_line_that_made_the_steps() -> None:
    steps = [
        Iteration(n, 1000 * (1 + n * 7 % 11), 0, 0.01 + 1e-4 * n + 2e-7 * 1000 * (1 + n * 7 % 11)) for n in range(1, 60)
    ]
    assert fit_steps(steps) == pytest.approx((0.01, 1e-4, 2e-7), rel=0.02)
    prompts = [Iteration(0, 0, tokens, 0.004 + 5e-5 * tokens) for tokens in range(100, 4000, 300)]
    assert fit_prompts(prompts) == pytest.approx((0.004, 5e-5), rel=0.01)
    assert fit_prompts(prompts[:4]) is None


def test_a_regression_has_no_negative_coefficient() -> None:
    steps = [Iteration(n, 1000, 0, 0.05 - 1e-4 * n) for n in range(1, 60)]
    line = fit_steps(steps)
    assert line is not None
    assert min(line) >= 0


def test_the_batch_at_an_objective_is_the_largest_that_meets_it() -> None:
    step = step_line(COEFFICIENTS)
    batch = batch_at(step, 0.05, 1000.0, 1e9, 10_000)
    assert step(batch, 1000.0 * batch) <= 0.05 < step(batch + 1, 1000.0 * (batch + 1))
    assert batch_at(step, 0.05, 1000.0, 10_000, 256) == 10
    assert batch_at(step, 1e-9, 1000.0, 1e9, 256) == 1
    count, per_s = decode_rate(step, COEFFICIENTS, 0.05, 900.0, 200.0)
    assert per_s == pytest.approx(count / (200 * step(count, count * 1000)))


def test_the_filter_moves_towards_what_is_seen_and_rejects_what_cannot_be() -> None:
    queue = Queue(0.01, 5e-5, 1e-5)
    truth = Queue(0.013, 6.5e-5, 1.3e-5)
    before = abs(latency_s(queue, 5.0, 1000.0, 200.0, False) - latency_s(truth, 5.0, 1000.0, 200.0, False))
    for _ in range(20):
        queue = follow(queue, latency_s(truth, 5.0, 1000.0, 200.0, False), 5.0, 1000.0, 200.0, False)
    after = abs(latency_s(queue, 5.0, 1000.0, 200.0, False) - latency_s(truth, 5.0, 1000.0, 200.0, False))
    assert after < before / 4
    assert follow(queue, 60.0, 5.0, 1000.0, 200.0, False) == queue


def test_the_modelled_rate_just_meets_the_objective() -> None:
    queue = Queue(0.01, 5e-5, 1e-5)
    for decode, objective in ((False, 0.5), (True, 0.05)):
        queue = Queue(0.01, 5e-5, 1e-8 if decode else 1e-5)
        per_s = rate_at(queue, objective, 1000.0, 200.0, decode)
        assert latency_s(queue, per_s, 1000.0, 200.0, decode) == pytest.approx(objective, rel=0.01)


def test_a_history_survives_json() -> None:
    history = extend(History(), told(0, 100), 0.0, 100.0)
    assert msgspec.json.decode(msgspec.json.encode(history), type=History) == history
