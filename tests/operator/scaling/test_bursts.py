"""Bursts that come again find the pods that the last one needed; those that stay away do not hold them for long."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.scaling.bursts import KEPT, LATER, return_seconds
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.state import Burst, State
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenarios import scenario
from tandem_operator.simulation.tandem import Tandem

from tests.operator.scaling.story import Story
from tests.operator.scaling.story import settings as make_settings

LAW = Law()
BASE, HIGH = 15.0, 150.0
PAUSE_S = 400.0
"""Longer than what a jump and the hold after it keep: 118 s and 176 s."""


def bursting(story: Story, times: int) -> Story:
    """Ten seconds of ten times the load, each after a pause."""
    for _ in range(times):
        story.run(10, HIGH).run(PAUSE_S - 10, BASE)
    return story


@pytest.fixture(scope="module")
def told() -> Story:
    """Three bursts, each followed by its pause. Not to be changed."""
    return bursting(Story(prefill=3, decode=2).run(300, BASE), 3)


def test_what_bursts_need_is_kept_between_them_once_they_have_come_again(told: Story) -> None:
    pause = round(PAUSE_S / told.tick_s)
    first, second, third = (told.sizes()[-count * pause : -(count - 1) * pause or None] for count in (3, 2, 1))
    assert first[-1][0] < max(p for p, _ in first), "a first burst may be the last"
    needed_p, needed_d = second[round(10 / told.tick_s)]
    assert min(p for p, _ in (*second[5:], *third)) >= needed_p
    assert min(d for _, d in (*second[5:], *third)) >= needed_d
    assert f"bursts have come after {PAUSE_S * LATER:.0f} s or less" in told.because


def test_bursts_that_stay_away_are_not_waited_for_twice(told: Story) -> None:
    story = deepcopy(told).run(PAUSE_S * (LATER - 1) + 60, BASE)
    assert story.targets.prefill < told.targets.prefill
    assert story.targets.decode < told.targets.decode


def test_without_the_switch_an_ordinary_hold_is_all() -> None:
    off = msgspec.structs.replace(make_settings(), law=Law(expect_bursts=False))
    story = bursting(Story(off, prefill=3, decode=2).run(300, BASE), 2)
    assert story.targets.prefill < max(p for p, _ in story.sizes())


def test_a_single_jump_says_nothing_of_a_return() -> None:
    story = Story(prefill=3, decode=2).run(300, BASE).run(600, HIGH)
    assert len(story.state.bursts) == 1
    assert return_seconds(story.state.bursts, story.now, LAW) == 0.0


def test_a_load_that_moves_slowly_or_not_at_all_has_no_bursts() -> None:
    story = Story(prefill=4, decode=3, seed=5).run(600, 60.0)
    for minute in range(10):
        story.run(60, 60.0 + 8 * minute)
    assert story.state.bursts == ()


def test_the_small_jump_with_which_work_begins_does_not_hide_the_pause_of_the_large_ones() -> None:
    bursts = tuple(
        Burst(at, at + 10, rate) for start in (0.0, 300.0, 600.0) for at, rate in ((start, BASE), (start + 120.0, HIGH))
    )
    assert return_seconds(bursts, 720.0, LAW) == 300.0 * LATER


def test_a_pause_that_costs_more_than_the_burst_is_worth_is_not_bridged() -> None:
    bursts = (Burst(0.0, 10.0, HIGH), Burst(LAW.regret_s + 1, LAW.regret_s + 11, HIGH))
    assert return_seconds(bursts, LAW.regret_s + 20, LAW) == 0.0


@settings(max_examples=40)
@given(rates=st.lists(st.floats(1.0, 500.0), min_size=1, max_size=30), period=st.sampled_from([2.0, 15.0]))
def test_no_load_makes_the_law_wait_longer_than_the_longest_pause_it_bridges(rates: list[float], period: float) -> None:
    story = Story(prefill=2, decode=2, tick_s=period)
    for rate in rates:
        story.run(4 * period, rate)
    state = msgspec.json.decode(msgspec.json.encode(story.state), type=State)
    assert len(state.bursts) <= KEPT
    assert 0.0 <= return_seconds(state.bursts, story.now, LAW) <= LATER * LAW.regret_s


def test_s4_the_third_burst_finds_the_pods_of_the_second() -> None:
    """Attainment was 0.90: sizes had become right, so the second burst was no panic any more that held them by luck."""
    made = replace(scenario("S4", quick=True), end_s=760.0)
    outcome = simulate(made, Tandem(), 0)
    assert outcome.attainment >= 0.95
    assert outcome.scale_downs == 0
