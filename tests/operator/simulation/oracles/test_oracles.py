"""Limits that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec
import pytest
from tandem_operator.scaling.decision import Targets
from tandem_operator.scaling.observation import Observation
from tandem_operator.simulation.oracles.clairvoyant import (
    Clairvoyant,
    at_once,
    clairvoyant,
    mean_needs,
    peak_needs,
    present_sizes,
    repaired,
)
from tandem_operator.simulation.oracles.fluid import Need, decode_seconds, needs, prompt_seconds
from tandem_operator.simulation.oracles.schedule import Schedule, sizes_of, static_mean, static_peak
from tandem_operator.simulation.outcome import Outcome, Series
from tandem_operator.simulation.scenario import Fleet, Scenario
from tandem_operator.simulation.workload import Request

from tests.operator.simulation.baselines.sights import COEFFICIENTS, SETTINGS


@dataclass(frozen=True)
class Even:
    """One request of 1000/201 tokens every `gap_s`."""

    gap_s: float = 0.1
    end_s: float = 600.0
    block_tokens: int = 512

    def requests(self, seed: int) -> Iterator[Request]:
        for index in range(int(self.end_s / self.gap_s)):
            yield Request(index * self.gap_s, 1000, 201)


SCENARIO = Scenario("even", "", Even(), SETTINGS, Fleet(COEFFICIENTS, COEFFICIENTS))
LADDER = Schedule(name="x", sizes=(Targets(1, 1), Targets(5, 2), Targets(1, 3), Targets(1, 1)))


def test_a_prompt_costs_its_tokens_and_what_is_cached_costs_nothing() -> None:
    whole = 0.06 + 0.005 * 1000 / SCENARIO.fleet.step_tokens
    assert prompt_seconds(SCENARIO, Request(0.0, 1000, 10), 0) == pytest.approx(whole)
    assert prompt_seconds(SCENARIO, Request(0.0, 1000, 10), 600) == pytest.approx(0.4 * whole)


def test_a_token_costs_its_share_of_the_largest_step_that_is_allowed() -> None:
    assert decode_seconds(COEFFICIENTS, Request(0.0, 900, 201), 0.05) == pytest.approx(200 * 0.05 / 200, rel=0.01)
    assert decode_seconds(COEFFICIENTS, Request(0.0, 10, 1), 0.05) == 0.0


def test_blocks_that_were_seen_before_need_no_prefill_where_pods_keep_them() -> None:
    same = [Request(0.0, 1024, 10, blocks=(1, 2)), Request(1.0, 1024, 10, blocks=(1, 2))]
    keeps = replace(SCENARIO, fleet=replace(SCENARIO.fleet, prefix_cache_tokens=10_000))
    assert needs(keeps, same, 60.0)[0].prefill == pytest.approx(needs(SCENARIO, same, 60.0)[0].prefill / 2, rel=0.01)


def test_need_is_work_per_second_and_nothing_of_it_is_lost_inside() -> None:
    by_window = needs(SCENARIO, Even().requests(0), 60.0)
    assert len(by_window) == 10
    assert by_window[5].prefill == pytest.approx(10 * prompt_seconds(SCENARIO, Request(0, 1000, 201), 0))
    assert by_window[5].decode == pytest.approx(10 * decode_seconds(COEFFICIENTS, Request(0, 1000, 201), 0.05))
    assert by_window[0].decode < by_window[5].decode


def test_sizes_are_whole_pods_and_none_only_where_nothing_comes() -> None:
    quiet = needs(SCENARIO, iter([Request(100.0, 1000, 10)]), 60.0)
    assert sizes_of(quiet)[:3] == (Targets(0, 0), Targets(1, 1), Targets(0, 0))


def test_a_schedule_without_lead_says_what_is_needed_now_and_with_one_what_will_be() -> None:
    assert [LADDER.at(now) for now in (0.0, 61.0, 130.0, 9999.0)] == [*LADDER.sizes[:3], Targets(1, 1)]
    ahead = Clairvoyant(LADDER, Outcome(scenario="s", policy="p", seed=0, seconds=1.0)).with_startup(SCENARIO)
    assert ahead.at(0.0) == Targets(5, 3)
    assert ahead.at(119.0) == Targets(5, 3)
    assert ahead.at(121.0) == Targets(1, 3)


def test_a_schedule_stays_within_the_users_bounds() -> None:
    capped = msgspec.structs.replace(SETTINGS, budget_gpus=20)
    assert LADDER.decide(capped, LADDER.initial(capped), Observation(), 61.0).targets == Targets(3, 1)
    assert LADDER.decide(SETTINGS, LADDER.initial(SETTINGS), Observation(), 61.0).targets == Targets(5, 2)


def test_static_sizes_come_from_the_schedule() -> None:
    peak, mean = static_peak(LADDER), static_mean(LADDER)
    assert (peak.prefill, peak.decode) == (5, 3)
    assert (mean.prefill, mean.decode) == (2, 2)


def test_a_repair_adds_a_pod_to_the_pool_that_was_late() -> None:
    series = Series(
        step_s=60.0,
        t_s=(0.0, 60.0, 120.0),
        attainment=(1.0, 0.5, 0.5),
        ttft_p99_s=(0.1, 9.0, 0.1),
        tpot_p99_s=(0.04, 0.04, 0.09),
    )
    outcome = Outcome(scenario="s", policy="p", seed=0, seconds=1.0, series=series)
    sizes = (Targets(1, 1),) * 3
    assert repaired(SCENARIO, sizes, outcome, 0.99) == (Targets(1, 1), Targets(2, 1), Targets(1, 2))


def test_a_repair_of_a_burst_goes_to_what_its_worst_part_needs() -> None:
    fine = [Need(0.5, 0.5)] * 5 + [Need(5.5, 0.5)]
    assert mean_needs(fine) == [Need(pytest.approx(8 / 6), 0.5)]  # type: ignore[arg-type]
    peaks = sizes_of(peak_needs(fine))
    series = Series(step_s=60.0, t_s=(0.0,), attainment=(0.5,), ttft_p99_s=(9.0,), tpot_p99_s=(0.01,))
    outcome = Outcome(scenario="s", policy="p", seed=0, seconds=1.0, series=series)
    assert repaired(SCENARIO, (Targets(2, 1),), outcome, 0.99, peaks) == (Targets(6, 1),)


def test_the_clairvoyant_repairs_until_the_objective_is_met_and_keeps_the_best() -> None:
    seen: list[tuple[Targets, ...]] = []

    def run(scenario: Scenario, schedule: Schedule, seed: int) -> Outcome:
        seen.append(schedule.sizes)
        enough = schedule.sizes[0].prefill >= 3
        series = Series(
            step_s=600.0, t_s=(0.0,), attainment=(None if enough else 0.5,), ttft_p99_s=(9.0,), tpot_p99_s=(0.01,)
        )
        return Outcome(
            scenario="s", policy="p", seed=seed, seconds=1.0, attainment=1.0 if enough else 0.5, series=series
        )

    found = clairvoyant(SCENARIO, 0, repairs=8, run=run)
    assert found.outcome.attainment == 1.0
    assert found.schedule.sizes == seen[-1]
    assert len(seen) == 3
    assert at_once(SCENARIO, Targets(7, 2)).fleet.startup.median_s == 0.0
    assert found.causal(deadline=False).discipline == "fifo"
    assert found.causal(deadline=True).convertible


def test_the_causal_oracle_knows_nothing_that_has_not_arrived_yet() -> None:
    quiet, busy = Need(0.5, 0.5), Need(4.0, 0.5)
    fine = [quiet] * 9 + [busy] * 9
    sizes = sizes_of(mean_needs(fine))
    for cut in range(1, len(fine)):
        changed = [*fine[:cut], *[Need(9.0, 9.0)] * (len(fine) - cut)]
        assert present_sizes(changed, sizes)[: cut + 1] == present_sizes(fine, sizes)[: cut + 1]


def test_the_causal_oracle_answers_a_jump_ten_seconds_after_it_and_keeps_to_the_minute_in_noise() -> None:
    fine = [Need(0.9, 0.5)] * 9 + [Need(4.0, 0.5)] + [Need(0.9, 0.5)] * 8
    found = [one.prefill for one in present_sizes(fine, sizes_of(mean_needs(fine)))]
    assert found[9] == 1
    assert found[10] == 4
    assert found[11] < 4
