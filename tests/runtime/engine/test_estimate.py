"""Coefficients learnt from steps predict the steps to come, and a step's prompts keep the promised pace."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from tandem_runtime.contracts.coefficients import Coefficients, Decode, Prefill, read_coefficients
from tandem_runtime.contracts.kv_protocol import Layout
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.budget import PaceKeeper
from tandem_runtime.engine.estimate import StepEstimate
from tandem_runtime.engine.executor import Capacity
from tandem_runtime.engine.loop import measure
from tandem_runtime.engine.request import Phase, Request
from tandem_runtime.engine.work import Work

CAPACITY = Capacity(
    pages=100,
    page_tokens=32,
    max_sequences=64,
    max_context_tokens=4096,
    vocab_size=100,
    eos_token_ids=frozenset(),
    layout=Layout(2, 1, 1, 32, "none", 3200),
    compat_hash="x",
)
TRUE = read_coefficients("laptop")


def learnt(noise: float = 0.0, steps: int = 200, true: Coefficients = TRUE) -> StepEstimate:
    random, estimate = Random(3), StepEstimate(CAPACITY)
    for _ in range(steps):
        tokens, context = random.randint(1, 512), random.choice((0, 0, 512))
        n, kv_tokens = random.randint(1, 32), random.randint(100, 20_000)
        factor = 1 + noise * random.uniform(-1, 1)
        attended = tokens * (context + tokens / 2)
        estimate.learn(0, 0, tokens, attended, true.prefill_seconds(tokens, context) * factor)
        estimate.learn(n, kv_tokens, 0, 0.0, true.step_seconds(n, kv_tokens) * factor)
    return estimate


@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 0.02), (0.2, 0.1)])
def test_it_predicts_what_it_has_seen_and_what_lies_between(noise: float, tolerance: float) -> None:
    found = learnt(noise).coefficients()
    assert found is not None
    for tokens in (32, 200, 512):
        assert found.prefill_seconds(tokens) == pytest.approx(TRUE.prefill_seconds(tokens), rel=tolerance)
    for n, kv_tokens in ((1, 500), (8, 4000), (32, 16_000)):
        assert found.step_seconds(n, kv_tokens) == pytest.approx(TRUE.step_seconds(n, kv_tokens), rel=tolerance)
    assert (found.kv_bytes_per_token, found.kv_tokens, found.max_sequences) == (100, 3200, 64)


def test_nothing_is_said_before_both_kinds_of_steps_were_seen() -> None:
    estimate = StepEstimate(CAPACITY)
    for _ in range(20):
        estimate.learn(0, 0, 64, 64 * 32.0, 0.01)
    assert estimate.coefficients() is None
    assert PaceKeeper(estimate).allow(512, 8, 64, 0.01, 0.05).grant(512, 0) == 512


def test_no_coefficient_is_negative_whatever_the_noise_says() -> None:
    random, estimate = Random(1), StepEstimate(CAPACITY)
    for _ in range(100):
        estimate.learn(0, 0, random.randint(1, 512), 0.0, random.uniform(0.001, 0.1))
        estimate.learn(random.randint(1, 8), 10, 0, 0.0, random.uniform(0.001, 0.1))
    found = estimate.coefficients()
    assert found is not None
    assert min(found.prefill.theta0_s, found.prefill.theta1_s, found.prefill.theta2_s) >= 0
    assert min(found.decode.phi0_s, found.decode.phi1_s, found.decode.phi2_s) >= 0


def test_a_single_stall_does_not_change_what_routers_are_told() -> None:
    estimate = learnt()
    before = estimate.coefficients()
    estimate.learn(4, 1000, 0, 0.0, 5.0)
    for _ in range(8):
        estimate.learn(4, 1000, 0, 0.0, TRUE.step_seconds(4, 1000))
    assert estimate.coefficients() is before, "the very object: routers compare by identity"


def test_a_pod_that_became_slower_says_so() -> None:
    estimate = learnt()
    before = estimate.coefficients()
    for n in range(200):
        estimate.learn(1 + n % 8, 1000, 0, 0.0, 2 * TRUE.step_seconds(1 + n % 8, 1000))
    after = estimate.coefficients()
    assert before is not None
    assert after is not None
    assert after.step_seconds(4, 1000) == pytest.approx(2 * before.step_seconds(4, 1000), rel=0.15)


def test_chunks_beside_decoding_keep_its_pace_and_are_whole_without_a_promise() -> None:
    slow = Coefficients(
        schema=1,
        prefill=Prefill(0.001, 1e-4, 0.0),
        decode=Decode(0.01, 0.001, 0.0),
        link=TRUE.link,
        kv_bytes_per_token=1,
        kv_tokens=1,
        max_sequences=1,
        load_s=0.0,
    )
    estimate = learnt(true=slow)
    keeper = PaceKeeper(estimate)
    spare = 0.9 * 0.05 - 0.02
    granted = []
    for _ in range(200):
        allowance = keeper.allow(512, 8, 64, 0.02, 0.05)
        tokens = allowance.grant(512, 0)
        if tokens:
            allowance.spend(tokens, 0)
        granted.append(tokens)
        keeper.settle(allowance, prompts_wait=True)
    assert granted[0] == 512, "what sixteen steps save may go into one prompt"
    prompts = sum(slow.prefill_seconds(tokens) for tokens in granted if tokens)
    assert prompts <= 1.1 * (200 + 16) * spare, "in the mean nobody is slower than promised"
    assert prompts >= 0.9 * 200 * spare, "and nothing of what is saved is lost"
    assert min(tokens for tokens in granted if tokens) >= 60, "no chunk is mostly its constant cost"
    assert keeper.allow(512, 8, 64, 0.02, inf).grant(1000, 0) == 512


def test_promises_that_cannot_be_kept_do_not_starve_prompts() -> None:
    estimate = learnt()
    keeper = PaceKeeper(estimate)
    granted = []
    for _ in range(36):
        allowance = keeper.allow(512, 8, 64, 0.2, 0.05)
        granted.append(allowance.grant(512, 0))
        if granted[-1]:
            allowance.spend(granted[-1], 0)
        keeper.settle(allowance, prompts_wait=True)
    assert set(granted) == {0, 64}
    assert granted.count(64) == 4


def test_steps_that_do_both_teach_what_prompts_add_to_them() -> None:
    estimate = StepEstimate(CAPACITY)
    for n in range(1, 65):
        estimate.learn(1 + n % 8, 100 * n, 0, 0.0, TRUE.step_seconds(1 + n % 8, 100 * n))
        added = 0.7 * TRUE.prefill_seconds(4 * n)
        estimate.learn(8, 4000, 4 * n, 4 * n * 2.0 * n, TRUE.step_seconds(8, 4000) + added)
    assert estimate.prefill_seconds(128, 128 * 64.0) == pytest.approx(0.7 * TRUE.prefill_seconds(128), rel=0.1)


def decoding(number: int, computed: int) -> Request:
    request = Request(number, [1] * (computed + 1), computed, Sampling(100), inf, 0)
    request.phase, request.computed = Phase.DECODE, computed
    return request


def test_drafts_that_are_checked_count_as_rows_so_that_steps_without_them_are_predicted_right() -> None:
    random, estimate = Random(5), StepEstimate(CAPACITY)
    for _ in range(200):
        work = []
        for number in range(random.randint(1, 8)):
            drafts = (1,) * random.choice((0, 0, 3, 7))
            work.append(Work(decoding(number, random.randint(10, 4000)), 1 + len(drafts), True, drafts))
        rows, kv_tokens = sum(item.tokens for item in work), sum(item.request.computed for item in work)
        step = measure(work, TRUE.step_seconds(rows, kv_tokens))
        assert (step.n, step.rows, step.kv_tokens, step.prefill_tokens) == (len(work), rows, kv_tokens, 0)
        estimate.learn(step.rows, step.kv_tokens, 0, 0.0, step.seconds)
    for n in (1, 4, 8):
        assert estimate.step_seconds(n, 500 * n) == pytest.approx(TRUE.step_seconds(n, 500 * n), rel=0.02)
