"""What a clamp, a stale list and a source that lied must not lead to."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.scaling.couple import gpus_of, within_budget
from tandem_operator.scaling.decision import Targets
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.observation import ClassCounters, Observation, RouterSignals
from tandem_operator.scaling.signals import read, take_routers
from tandem_operator.scaling.state import State

from tests.operator.scaling.story import Story
from tests.operator.scaling.story import settings as make_settings

LAW = Law()
SIZES = st.integers(1, 40)


def unknown(prefill: int, decode: int) -> float:
    return math.inf


def told(at: float, **counters: int) -> Observation:
    classes = {"interactive": ClassCounters(**counters)}
    return Observation(routers=(RouterSignals(router="r0", incarnation="a", at=at, classes=classes),), pods_at=at)


def test_shed_and_failed_requests_are_misses() -> None:
    first = take_routers(State(), told(10.0), 10.0, LAW)
    state = State(routers=first.marks, mixes=first.mixes)
    after = told(15.0, arrivals=14, completed=8, met=6, missed=2, shed=3, failed=1, cancelled=2)
    mix = take_routers(state, after, 15.0, LAW).mixes["interactive"]
    assert mix.met == pytest.approx(6.0)
    assert mix.counted == pytest.approx(12.0)


def test_a_counter_that_fell_stays_suspect_until_a_younger_account_comes() -> None:
    state, quality = State(), []
    for now, at, arrivals in ((10.0, 10.0, 100), (15.0, 15.0, 40), (17.0, 15.0, 40), (20.0, 20.0, 60)):
        observation = told(at, arrivals=arrivals)
        taken = take_routers(state, observation, now, LAW)
        quality.append(read(taken, {}, observation, now, LAW).load_quality)
        state = State(routers=taken.marks, bins=taken.bins, since=taken.since, seen=taken.seen)
    assert quality == ["Fresh", "Suspect", "Suspect", "Fresh"]


def test_a_budget_takes_only_what_is_above_it_while_load_is_unknown() -> None:
    chosen = make_settings(prefill={"gpus": 4}, decode={"gpus": 4}, budget_gpus=40)
    story = Story(chosen, prefill=9, decode=6)
    story.router_tells = False
    story.run(60, 0.0)
    assert set(story.sizes()) == {(6, 4)}


@given(SIZES, SIZES, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 8]), st.integers(12, 300))
@settings(max_examples=60)
def test_of_pods_that_are_there_none_goes_that_the_budget_could_bear(
    prefill: int, decode: int, p_gpus: int, d_gpus: int, budget: int
) -> None:
    chosen = make_settings(prefill={"gpus": p_gpus}, decode={"gpus": d_gpus})
    have = Targets(prefill, decode)
    for share in (unknown, lambda p, d: min(p / 3.0, d / 2.0)):
        got = within_budget(chosen, have, budget, share, have).targets
        cost = gpus_of(chosen, got.prefill, got.decode)
        assert cost <= budget
        assert got.prefill == prefill or cost + p_gpus > budget
        assert got.decode == decode or cost + d_gpus > budget


def test_a_budget_just_below_what_load_asks_for_leaves_room_for_chance() -> None:
    """One GPU too few once cut the fleet to what would have been busy all the time."""
    free = Story().run(300, 300.0).targets
    asked = free.prefill + free.decode
    capped = Story(make_settings(budget_gpus=asked - 1)).run(300, 300.0).targets
    assert capped.prefill + capped.decode == asked - 1


def test_a_budget_moves_no_gpu_out_of_a_pool_whose_signals_are_stale() -> None:
    chosen = make_settings(budget_gpus=12)
    want, have = Targets(12, 6), Targets(4, 8)

    def share(prefill: int, decode: int) -> float:
        return min(prefill / 10.0, decode / 1.0)

    assert within_budget(chosen, Targets(12, 8), 12, share, have).targets.decode < 8
    assert within_budget(chosen, Targets(12, 8), 12, share, have, Targets(0, 8)).targets == have
    assert within_budget(chosen, want, 12, share, have, Targets(0, 8)).targets == Targets(6, 6)


@pytest.mark.parametrize("zero", [False, True])
def test_an_old_list_of_pods_removes_nothing(zero: bool) -> None:
    chosen = make_settings(scale_to_zero=zero, idle_after_s=60.0)
    story = Story(chosen, prefill=6, decode=6, startup_s=10.0, tick_s=10.0).run(60, 5.0)
    start = story.now
    before = story.targets
    story.garble = lambda observation: msgspec.structs.replace(observation, pods_at=start)
    story.run(1500, 0.0)
    late = story.sizes()[10:]
    assert all(p >= before.prefill and d >= before.decode for p, d in late)


def test_pods_that_do_not_tell_what_they_do_are_not_idle() -> None:
    story = Story(make_settings(scale_to_zero=True, idle_after_s=60.0), tick_s=5.0).run(60, 5.0)
    story.pods_tell = False
    story.run(600, 0.0)
    assert story.targets != Targets(0, 0)
    story.pods_tell = True
    story.run(60, 0.0)
    assert story.targets == Targets(0, 0)


SILENCE = st.tuples(st.booleans(), st.booleans(), st.booleans(), st.sampled_from([0.0, 5.0, 40.0, 300.0]))


@given(st.lists(SILENCE, min_size=2, max_size=4), st.booleans())
@settings(max_examples=8, deadline=None)
def test_whatever_falls_silent_and_when_nothing_is_removed_that_is_not_seen(
    parts: list[tuple[bool, bool, bool, float]], flips: bool
) -> None:
    """Routers, pods, the list of pods, in any order and together; lengths turn and a budget binds meanwhile."""
    chosen = make_settings(budget_gpus=14, role_flip=flips)
    story = Story(chosen, prefill=5, decode=5, startup_s=30.0, tick_s=5.0).run(120, 100.0)
    story.tick_s = 10.0
    heard = [story.now] * 3
    for *tells, rate in parts:
        story.router_tells, story.pods_tell, listed = tells

        def garble(seen: Observation, at: float = heard[2], listed: bool = listed) -> Observation:
            return seen if listed else msgspec.structs.replace(seen, pods_at=at)

        story.garble = garble
        for _ in range(25):
            before = story.targets
            story.run(10.0, rate, *((8000, 50) if rate > 100 else (500, 900)), running=40)
            heard = [story.now if now else at for now, at in zip(tells, heard, strict=True)]
            if min(heard) < story.now - LAW.fresh_s:
                assert story.targets.prefill >= before.prefill
                assert story.targets.decode >= before.decode


@pytest.mark.parametrize("away", ["Frozen", "nobody decides"])
def test_minutes_without_a_look_are_no_minutes_without_load(away: str) -> None:
    story = Story(prefill=6, decode=5, startup_s=60.0, tick_s=5.0).run(300, 120.0)
    before, state = story.targets, story.state
    story.settings = make_settings(mode="Frozen")
    story.run(400, 120.0)
    if away != "Frozen":
        story.state = state
    story.settings = make_settings()
    story.run(5, 120.0)
    assert story.targets == before
    story.run(120, 120.0)
    assert story.targets == before


def test_requests_that_came_while_nobody_looked_keep_a_fleet_awake() -> None:
    story = Story(make_settings(scale_to_zero=True, idle_after_s=600.0), tick_s=5.0).run(60, 1.0)
    state = story.state
    story.settings = make_settings(mode="Frozen")
    story.run(650, 1.0)
    story.state, story.settings = state, make_settings(scale_to_zero=True, idle_after_s=600.0)
    story.run(5, 0.0)
    assert story.targets == Targets(1, 1)


def test_a_router_that_was_out_of_reach_for_minutes_says_nothing_of_them() -> None:
    """Its account is too old to be remembered: what it counted meanwhile is not known, and not taken for no load."""
    story = Story(prefill=6, decode=5, startup_s=60.0, tick_s=5.0).run(300, 120.0)
    before = story.targets
    story.router_tells = False
    story.run(400, 120.0)
    story.router_tells = True
    story.run(5, 120.0)
    assert story.targets == before
    assert "load is not known yet" in story.because
    story.run(600, 120.0)
    assert all(prefill >= before.prefill - 1 for prefill, _ in story.sizes())


@pytest.mark.parametrize("back_s", [70.0, 3 * 86400.0])
def test_a_clock_that_goes_back_blocks_neither_growth_nor_removal(back_s: float) -> None:
    story = Story(prefill=3, decode=3, startup_s=60.0, tick_s=5.0, now=10 * 86400.0).run(900, 60.0)
    settled = story.targets
    story.now -= back_s
    story.run(120, 240.0)
    grown = story.targets
    assert grown.prefill > settled.prefill
    story.run(3000, 60.0)
    assert story.targets.prefill < grown.prefill


def test_a_pool_of_fixed_size_does_not_go_to_zero() -> None:
    chosen = make_settings(prefill={"replicas": 2}, scale_to_zero=True, idle_after_s=60.0)
    story = Story(chosen, prefill=2, decode=2, tick_s=5.0).run(60, 5.0).run(1500, 0.0)
    assert story.targets == Targets(2, 1)
