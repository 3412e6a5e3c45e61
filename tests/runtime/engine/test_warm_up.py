"""After the warm-up routers can be told what steps take, and the pages are as good as new."""

from __future__ import annotations

import pytest
from tandem_runtime.contracts.coefficients import read_coefficients
from tandem_runtime.engine.emulated_executor import EmulatedExecutor
from tandem_runtime.engine.estimate import StepEstimate
from tandem_runtime.engine.warm_up import warm_up

from tests.runtime.decoding import Stream


@pytest.mark.parametrize("context_tokens", [1000, 40])
def test_it_learns_what_steps_take_in_bounded_time_and_leaves_nothing_behind(context_tokens: int) -> None:
    now, laptop = [0.0], read_coefficients("laptop")

    def sleep(seconds: float) -> None:
        now[0] += max(0.0, seconds)

    executor = EmulatedExecutor(laptop, sleep=sleep, clock=lambda: now[0], max_context_tokens=context_tokens)
    capacity = executor.load()
    estimate = StepEstimate(capacity)
    warm_up(executor, capacity, estimate, lambda: now[0])
    assert now[0] < 1.0
    found = estimate.coefficients()
    assert found is not None
    assert found.step_seconds(4, 124) == pytest.approx(laptop.step_seconds(4, 124), rel=0.1)
    tokens = min(150, context_tokens - 1)
    assert found.prefill_seconds(tokens) == pytest.approx(laptop.prefill_seconds(tokens), rel=0.5)
    fresh = EmulatedExecutor(laptop, sleep=sleep)
    fresh.load()
    prompt = list(range(3, 33))
    assert Stream(executor, prompt).run(4) == Stream(fresh, prompt, 8).run(4)
