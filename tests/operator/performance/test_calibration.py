"""Calibration: from a wrong prior to the machine's own figures, and never further than physics or evidence allow."""

from __future__ import annotations

import math
import random
import time
from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.performance.calibration import Calibration, observe, start
from tandem_operator.performance.fit import REFUSED_IN_A_ROW
from tandem_runtime.contracts.coefficients import Coefficients, Decode, Prefill, read_coefficients

TRUTH: Final = read_coefficients("h100-sxm")


class Step(msgspec.Struct, frozen=True):
    sequences: int
    kv_tokens: int
    prefill_tokens: int
    seconds: float
    prefill_attended: float = 0.0


def times(coefficients: Coefficients, prefill: tuple[float, ...], decode: tuple[float, ...]) -> Coefficients:
    theta = (f * v for f, v in zip(prefill, msgspec.structs.astuple(coefficients.prefill), strict=True))
    phi = (f * v for f, v in zip(decode, msgspec.structs.astuple(coefficients.decode), strict=True))
    return msgspec.structs.replace(coefficients, prefill=Prefill(*theta), decode=Decode(*phi))


def prompts(count: int, seed: int = 0, truth: Coefficients = TRUTH, noise: float = 0.05) -> list[Step]:
    rng = random.Random(seed)
    sizes = [rng.choice((200, 700, 1500, 3000, 6000)) for _ in range(count)]
    return [Step(0, 0, size, truth.prefill_seconds(size) * rng.gauss(1, noise)) for size in sizes]


def decodes(count: int, seed: int = 0, truth: Coefficients = TRUTH, noise: float = 0.05) -> list[Step]:
    rng = random.Random(seed)
    batches = [(n := rng.randint(4, 120), n * rng.randint(500, 2500)) for _ in range(count)]
    return [Step(n, kv, 0, truth.step_seconds(n, kv) * rng.gauss(1, noise)) for n, kv in batches]


def worst_error(calibration: Calibration, truth: Coefficients = TRUTH) -> float:
    """Of predictions where the samples were."""
    known = calibration.coefficients
    prefill = [known.prefill_seconds(n) / truth.prefill_seconds(n) - 1 for n in (500, 1500, 4000)]
    decode = [known.step_seconds(n, n * 1500) / truth.step_seconds(n, n * 1500) - 1 for n in (8, 32, 100)]
    return max(map(abs, prefill + decode))


@pytest.mark.parametrize("factors", [(1.3, 1.3, 1.3), (0.7, 0.7, 0.7), (0.7, 1.3, 0.7), (1.3, 0.7, 1.3)])
def test_a_prior_that_is_30_percent_off_is_right_after_a_minute(factors: tuple[float, float, float]) -> None:
    calibration = start(times(TRUTH, factors, factors))
    for second in range(0, 60, 2):
        calibration = observe(calibration, prompts(10, second) + decodes(10, second))
    assert worst_error(calibration) < 0.04


def test_a_coefficient_of_which_the_prior_says_nothing_is_found() -> None:
    calibration = start(times(TRUTH, (0, 1, 1), (1, 0, 1)))
    for seed in range(20):
        calibration = observe(calibration, prompts(60, seed, noise=0.02) + decodes(60, seed, noise=0.02))
    assert calibration.coefficients.decode.phi1_s == pytest.approx(TRUTH.decode.phi1_s, rel=0.3)
    assert worst_error(calibration) < 0.03


def test_one_common_factor_carries_over_to_loads_never_seen() -> None:
    slow = times(TRUTH, (1.4,) * 3, (1.4,) * 3)
    few = [Step(20, 20_000, 0, slow.step_seconds(20, 20_000)) for _ in range(60)]
    known = observe(start(TRUTH), few).coefficients
    assert known.step_seconds(120, 240_000) == pytest.approx(slow.step_seconds(120, 240_000), rel=0.1)


def test_single_outliers_move_nothing() -> None:
    calm = observe(start(TRUTH), decodes(200))
    rng = random.Random(5)
    noisy = [s if rng.random() > 0.03 else msgspec.structs.replace(s, seconds=s.seconds * 8) for s in decodes(200)]
    shaken = observe(start(TRUTH), noisy)
    assert shaken.decode.refused > calm.decode.refused
    assert worst_error(shaken) < 0.03


def test_a_machine_that_becomes_slower_is_followed_though_each_sample_looks_like_an_outlier() -> None:
    calibration = observe(start(TRUTH), decodes(250) + prompts(250))
    slow = times(TRUTH, (2.5,) * 3, (2.5,) * 3)
    first = observe(calibration, decodes(REFUSED_IN_A_ROW - 1, truth=slow))
    assert first.coefficients == calibration.coefficients
    for seed in range(10):
        calibration = observe(calibration, decodes(30, seed, slow) + prompts(30, seed, slow))
    assert worst_error(calibration, slow) < 0.1


def test_samples_faster_than_physics_teach_nothing_and_are_told() -> None:
    before = observe(start(TRUTH), decodes(100))
    lies = decodes(40, truth=times(TRUTH, (0.1,) * 3, (0.1,) * 3))
    after = observe(before, lies)
    assert after.is_suspect
    assert not before.is_suspect
    assert after.coefficients == before.coefficients
    assert not observe(after, decodes(100)).is_suspect


def test_given_physics_bound_the_coefficients_instead_of_half_the_prior() -> None:
    physics = times(TRUTH, (0, 0.9, 0.9), (0.9, 0, 0.9))
    fast = decodes(200, truth=times(TRUTH, (1,) * 3, (0.7, 1, 1)), noise=0.01)
    assert observe(start(TRUTH, physics), fast).coefficients.decode.phi0_s >= 0.9 * TRUTH.decode.phi0_s * 0.999999
    assert observe(start(TRUTH), fast).coefficients.decode.phi0_s < 0.8 * TRUTH.decode.phi0_s


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0, 0.0])
def test_what_is_no_duration_changes_nothing(seconds: float) -> None:
    calibration = observe(start(TRUTH), decodes(50))
    assert observe(calibration, [Step(10, 10_000, 0, seconds), Step(0, 0, 100, seconds)]) == calibration


def test_steps_that_computed_prompts_and_decoded_teach_nothing() -> None:
    assert observe(start(TRUTH), [Step(10, 10_000, 512, 0.5)] * 20) == start(TRUTH)


def test_nine_of_ten_steps_stay_below_the_cautious_prediction() -> None:
    calibration = start(TRUTH)
    for seed in range(8):
        calibration = observe(calibration, decodes(200, seed, noise=0.1) + prompts(200, seed, noise=0.1))
    cautious = calibration.cautious
    below = [s.seconds <= cautious.step_seconds(s.sequences, s.kv_tokens) for s in decodes(2000, 99, noise=0.1)]
    assert 0.84 < sum(below) / len(below) < 0.96
    below = [s.seconds <= cautious.prefill_seconds(s.prefill_tokens) for s in prompts(2000, 99, noise=0.1)]
    assert 0.84 < sum(below) / len(below) < 0.96


def test_uncertainty_shrinks_where_samples_are_and_stays_where_none_are() -> None:
    before = start(TRUTH)
    after = observe(before, [Step(20, 20_000, 0, TRUTH.step_seconds(20, 20_000)) for _ in range(100)])
    assert before.decode_deviation(20, 20_000) > 0.4
    assert after.decode_deviation(20, 20_000) < 0.03
    assert after.decode_deviation(200, 800_000) > 3 * after.decode_deviation(20, 20_000)
    assert after.prefill_deviation(1000) == before.prefill_deviation(1000)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 300),
            st.integers(0, 2_000_000),
            st.integers(0, 50_000),
            st.floats(allow_nan=True, allow_infinity=True),
        )
        | st.tuples(st.integers(1, 300), st.integers(0, 2_000_000), st.just(0), st.floats(1e-6, 10)),
        max_size=120,
    )
)
def test_whatever_is_told_no_coefficient_leaves_its_bounds(rows: list[tuple[int, int, int, float]]) -> None:
    calibration = observe(start(TRUTH), [Step(*row) for row in rows])
    known = calibration.coefficients
    values = (*msgspec.structs.astuple(known.prefill), *msgspec.structs.astuple(known.decode))
    priors = (*msgspec.structs.astuple(TRUTH.prefill), *msgspec.structs.astuple(TRUTH.decode))
    assert all(0 <= value <= 10.0001 * prior for value, prior in zip(values, priors, strict=True))
    assert known.decode.phi0_s >= 0.4999 * TRUTH.decode.phi0_s
    assert all(c.p90 >= 1 and c.noise > 0 and math.isfinite(c.p90) for c in (calibration.prefill, calibration.decode))
    assert msgspec.json.decode(msgspec.json.encode(calibration), type=Calibration) == calibration


def test_a_hundred_samples_cost_a_small_part_of_a_decision() -> None:
    calibration, samples = start(TRUTH), decodes(50) + prompts(50)
    seconds = []
    for _ in range(20):
        begun = time.perf_counter()
        observe(calibration, samples)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.002


def test_prompts_computed_together_are_told_apart_from_a_long_one() -> None:
    """Eight prompts of 500 attend to an eighth of what one of 4000 does."""
    rng = random.Random(3)
    theta, steps = TRUTH.prefill, []
    for _ in range(300):
        sizes = [rng.randint(100, 1500) for _ in range(rng.randint(1, 8))]
        attended = sum(size * size / 2 for size in sizes)
        seconds = theta.theta0_s + theta.theta1_s * sum(sizes) + theta.theta2_s * attended
        steps.append(Step(0, 0, sum(sizes), seconds * rng.gauss(1, 0.02), attended))
    steps += [
        Step(0, 0, 2048, TRUTH.prefill_seconds(2048, context), 2048 * (context + 1024.0)) for context in (4096, 30_000)
    ]
    known = observe(start(times(TRUTH, (1, 0.8, 1.5), (1, 1, 1))), steps).coefficients
    assert known.prefill_seconds(1000) == pytest.approx(TRUTH.prefill_seconds(1000), rel=0.03)
    assert known.prefill_seconds(20_000) == pytest.approx(TRUTH.prefill_seconds(20_000), rel=0.1)


def test_where_the_prior_is_a_guess_much_faster_steps_are_believed() -> None:
    guess = times(TRUTH, (3,) * 3, (3,) * 3)
    calibration = start(guess, share=0.0)
    for seed in range(4):
        calibration = observe(calibration, prompts(60, seed) + decodes(60, seed))
    assert worst_error(calibration) < 0.05
    assert not calibration.is_suspect
    assert observe(start(guess), prompts(60) + decodes(60)).is_suspect
