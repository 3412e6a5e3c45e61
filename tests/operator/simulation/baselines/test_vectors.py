"""The ports against vectors worked out from the upstream constants."""

from __future__ import annotations

import pytest
from tandem_operator.simulation.baselines.bounded_ratio import bounded_replicas
from tandem_operator.simulation.baselines.capacity import PromptLine
from tandem_operator.simulation.baselines.concurrency import Panic, Windows, concurrency_replicas
from tandem_operator.simulation.baselines.hpa import average_value_replicas, pods_replicas, ratio_replicas, stabilise
from tandem_operator.simulation.baselines.profiled_rates import prefill_load
from tandem_operator.simulation.baselines.queue_length import queue_replicas
from tandem_operator.simulation.baselines.queueing_model import residence_s, ttft_s
from tandem_operator.simulation.baselines.regression_rates import decode_step, prefill_step, throughput_replicas
from tandem_operator.simulation.baselines.saturation import Limits, saturation_step
from tandem_operator.simulation.baselines.token_capacity import required_tokens, spare_tokens


@pytest.mark.parametrize(("ratio", "replicas"), [(1.5, 6), (1.08, 4), (0.92, 4), (0.5, 2)])
def test_hpa_scales_by_the_ratio_outside_of_its_tolerance(ratio: float, replicas: int) -> None:
    assert ratio_replicas(4, ratio) == replicas


def test_hpa_goes_up_at_once_but_no_further_than_doubling_or_four_more() -> None:
    assert stabilise((), 0.0, 4, 20, 300.0)[1] == 8
    assert stabilise((), 0.0, 2, 20, 300.0)[1] == 6
    assert stabilise((), 0.0, 10, 12, 300.0)[1] == 12


def test_hpa_goes_down_only_after_300_s_in_which_nothing_larger_was_recommended() -> None:
    kept, size = stabilise((), 0.0, 4, 4, 300.0)
    for now in range(15, 300, 15):
        kept, size = stabilise(kept, float(now), 4, 2, 300.0)
        assert size == 4
    assert stabilise(kept, 300.0, 4, 2, 300.0)[1] == 2


def test_hpa_counts_silent_pods_as_at_target_on_the_way_down_and_as_idle_on_the_way_up() -> None:
    assert pods_replicas(4, [0.1, 0.1], 2, 0, 0.7, 0.1) == 3
    assert pods_replicas(4, [0.9, 0.9], 2, 0, 0.7, 0.1) == 4
    assert pods_replicas(4, [1.4] * 4, 0, 0, 0.7, 0.1) == 8


@pytest.mark.parametrize(("queue", "replicas"), [(21.0, 11), (0.0, 0), (4.2, 2)])
def test_an_average_value_divides_the_whole(queue: float, replicas: int) -> None:
    assert average_value_replicas(2, queue, 2.0) == replicas


def test_queue_length_asks_for_none_only_after_300_s_without_activity() -> None:
    assert queue_replicas(21.0, 2.0, 4, 0.0) == 11
    assert queue_replicas(0.0, 2.0, 4, 299.0) == 1
    assert queue_replicas(0.0, 2.0, 4, 300.0) == 0


def test_concurrency_rounds_its_largest_step_up() -> None:
    slow = Windows(max_up=1.1)
    assert concurrency_replicas(Panic(), 0.0, 2, 3.0, 3.0, 1.0, slow)[1] == 3


def test_concurrency_panics_at_twice_the_ready_and_never_goes_down_in_panic() -> None:
    windows = Windows()
    panic, size = concurrency_replicas(Panic(), 0.0, 2, 3.0, 4.0, 1.0, windows)
    assert (panic.since, size) == (0.0, 4)
    panic, size = concurrency_replicas(panic, 10.0, 4, 1.0, 1.0, 1.0, windows)
    assert (panic.since, size) == (0.0, 4)


def test_concurrency_leaves_panic_a_stable_window_after_the_last_crossing() -> None:
    windows = Windows()
    panic, _ = concurrency_replicas(Panic(), 0.0, 2, 3.0, 4.0, 1.0, windows)
    panic, _ = concurrency_replicas(panic, 20.0, 2, 3.0, 4.0, 1.0, windows)
    panic, size = concurrency_replicas(panic, 80.0, 4, 1.0, 1.0, 1.0, windows)
    assert (panic.since, size) == (20.0, 4)
    panic, size = concurrency_replicas(panic, 80.1, 4, 1.0, 1.0, 1.0, windows)
    assert (panic.since, size) == (None, 2)


def test_the_bounded_ratio_is_bounded_both_ways() -> None:
    assert bounded_replicas(4, 2.0, 1.0, rate_up=1.5) == 6
    assert bounded_replicas(4, 0.2, 1.0, rate_down=2.0) == 2
    assert bounded_replicas(4, 1.05, 1.0) == 4
    assert bounded_replicas(4, 0.85, 1.0) == 4


def test_profiled_rates_clamp_the_correction_of_prefill_to_one() -> None:
    assert prefill_load(10.0, 3000.0, 60.0, 2.5) == prefill_load(10.0, 3000.0, 60.0, 1.0) == 500.0
    assert prefill_load(10.0, 3000.0, 60.0, 0.5) == 250.0


def test_regression_rates_take_an_engine_for_all_of_its_time() -> None:
    assert throughput_replicas(25.0, 1 / 0.1) == 3


def test_the_load_loop_adds_only_when_every_engine_exceeds() -> None:
    line = PromptLine(0.0, 1e-3)
    assert prefill_step([2100.0, 1900.0], 0.0, line, 2.0) == 0
    assert prefill_step([2100.0, 2010.0], 0.0, line, 2.0) == 1
    assert prefill_step([100.0, 100.0], 0.0, line, 2.0) == -1
    assert prefill_step([900.0, 100.0], 0.0, line, 2.0) == 0


def test_the_load_loop_refuses_to_go_from_two_to_one_at_four_fifths_of_the_objective() -> None:
    assert decode_step([0.79 * 0.05] * 2, [2 * 0.79 * 0.05] * 2, [0.5, 0.5], 0.05) == 0
    assert decode_step([0.3 * 0.05] * 2, [0.6 * 0.05] * 2, [0.5, 0.5], 0.05) == -1
    assert decode_step([0.3 * 0.05] * 2, [0.6 * 0.05] * 2, [1.1, 0.5], 0.05) == 0
    assert decode_step([0.06, 0.04], [0.1, 0.1], [0.5, 0.5], 0.05) == 0
    assert decode_step([0.06, 0.051], [0.1, 0.1], [0.5, 0.5], 0.05) == 1


@pytest.mark.parametrize(
    ("kv", "pending", "step"), [([0.65, 0.74], 0, 0), ([0.65, 0.76], 0, 1), ([0.65, 0.76], 1, 0), ([0.1, 0.1], 0, -1)]
)
def test_saturation_adds_one_when_the_mean_spare_is_too_small_and_none_is_pending(
    kv: list[float], pending: int, step: int
) -> None:
    assert saturation_step(kv, [0.0] * len(kv), pending, Limits()) == step


def test_saturation_counts_the_queue_too() -> None:
    assert saturation_step([0.1, 0.1], [2.5, 2.5], 0, Limits()) == 1
    assert saturation_step([0.1, 0.1], [6.0, 6.0], 0, Limits()) == 1
    assert saturation_step([0.1], [0.0], 0, Limits()) == 0


def test_token_capacity_asks_by_85_percent_and_gives_back_by_70() -> None:
    assert required_tokens(90.0, 100.0) == pytest.approx(5.9, abs=0.02)
    assert spare_tokens(60.0, 100.0) == pytest.approx(14.3, abs=0.02)


def test_the_queueing_model_triples_the_idle_time_at_two_thirds() -> None:
    assert residence_s(0.005, 2 / 3) == pytest.approx(0.015)
    assert ttft_s(0.015, 3e-5, 1e-5, 1000.0) == pytest.approx(0.055)
