"""Roles change in place only where the giver can spare it, and not to and fro."""

from __future__ import annotations

import pytest
from tandem_operator.scaling.decision import Targets
from tandem_operator.scaling.flip import flip
from tandem_operator.scaling.state import State

from tests.operator.scaling.story import Story, settings

FLIPS = settings(role_flip=True)
SEEN = (False, False)


def test_what_one_pool_lacks_comes_from_what_the_other_can_spare() -> None:
    found = flip(FLIPS, State(), Targets(9, 2), Targets(9, 6), Targets(3, 6), SEEN, 100.0)
    assert found.sizes == Targets(5, 6)
    assert found.reason == "4 of prefill become decode in place"
    some = flip(FLIPS, State(), Targets(4, 2), Targets(4, 6), Targets(3, 6), SEEN, 100.0)
    assert some.sizes == Targets(3, 6)


@pytest.mark.parametrize(
    ("asked", "blind", "low"),
    [
        (settings(), SEEN, Targets(1, 6)),
        (FLIPS, (True, False), Targets(1, 6)),
        (FLIPS, SEEN, Targets(9, 6)),
        (settings(role_flip=True, prefill={"gpus": 4}), SEEN, Targets(1, 6)),
        (settings(role_flip=True, prefill={"replicas": 9}), SEEN, Targets(1, 6)),
        (settings(role_flip=True, prefill={"min_replicas": 9}), SEEN, Targets(1, 6)),
    ],
    ids=["not asked for", "the giver is not seen", "nothing to spare", "other devices", "fixed", "the minimum"],
)
def test_nothing_flips_when(asked: object, blind: tuple[bool, bool], low: Targets) -> None:
    found = flip(asked, State(), Targets(9, 2), Targets(9, 6), low, blind, 100.0)  # type: ignore[arg-type]
    assert found.sizes == Targets(9, 6)
    assert found.reason == ""


def test_both_pools_growing_take_nothing_from_each_other() -> None:
    found = flip(FLIPS, State(), Targets(3, 2), Targets(9, 6), Targets(1, 1), SEEN, 100.0)
    assert found.sizes == Targets(9, 6)


def test_who_was_given_to_keeps_it_for_the_dwell() -> None:
    first = flip(FLIPS, State(), Targets(9, 2), Targets(9, 6), Targets(3, 6), SEEN, 100.0)
    back = (Targets(5, 6), Targets(8, 6), Targets(8, 2), SEEN)
    assert flip(FLIPS, first.state, *back, 100.0 + FLIPS.law.dwell_s - 1).sizes == Targets(8, 6)
    assert flip(FLIPS, first.state, *back, 100.0 + FLIPS.law.dwell_s).sizes == Targets(8, 3)
    more = flip(FLIPS, first.state, Targets(5, 6), Targets(5, 8), Targets(3, 8), SEEN, 102.0)
    assert more.sizes == Targets(3, 8), "the same way at once"


def test_while_requests_miss_their_objective_pods_that_have_yet_to_start_are_no_help() -> None:
    wanted, least = Targets(10, 4), Targets(10, 1)
    calm = flip(FLIPS, State(), Targets(10, 4), wanted, least, SEEN, 100.0)
    assert calm.sizes == wanted, "ten of prefill are asked for already"
    found = flip(FLIPS, State(), Targets(10, 4), wanted, least, SEEN, 100.0, urgent=Targets(3, 2))
    assert found.sizes == Targets(10, 1), "the one that serves and the two that start"
    assert found.reason == "1 of decode become prefill in place"
    none = flip(FLIPS, State(), Targets(10, 4), wanted, least, SEEN, 100.0, urgent=Targets(3, 1))
    assert none.sizes == wanted


def test_pods_that_are_on_their_way_to_the_other_role_are_not_asked_for_again() -> None:
    wanted, least = Targets(10, 20), Targets(10, 5)
    first = flip(FLIPS, State(), wanted, wanted, least, SEEN, 100.0, urgent=Targets(3, 20))
    assert first.sizes == Targets(10, 13)
    again = flip(FLIPS, first.state, first.sizes, first.sizes, least, SEEN, 102.0, urgent=Targets(3, 13))
    assert (again.sizes, again.reason) == (first.sizes, ""), "seven are drained and changed"
    more = flip(FLIPS, first.state, first.sizes, Targets(12, 13), least, SEEN, 104.0, urgent=Targets(8, 13))
    assert more.sizes == Targets(12, 11), "two more than the ten that will be there"
    lost = flip(FLIPS, first.state, first.sizes, first.sizes, least, SEEN, 160.0, urgent=Targets(8, 13))
    assert lost.sizes == Targets(10, 11), "who has not come by then does not come"


def test_a_burst_of_the_same_requests_changes_no_roles_however_large() -> None:
    story = Story(settings=FLIPS, prefill=3, decode=3).run(300, 5.0)
    story.run(30, 50.0)
    story.run(120, 5.0)
    assert not any("in place" in " ".join(one.explanation.suppressed_by) for one in story.decisions)


def test_lengths_that_turn_move_pods_at_once_and_constant_load_moves_none() -> None:
    story = Story(settings=FLIPS, prefill=8, decode=2).run(300, 20.0, prompt=8000, output=50)
    before = story.targets
    story.run(60, 20.0, prompt=500, output=1500, running=250)
    assert story.targets.prefill < before.prefill
    assert story.targets.decode > before.decode
    calm = Story(settings=FLIPS, seed=3, prefill=6, decode=4).run(1200, 60.0)
    assert not any("in place" in " ".join(one.explanation.suppressed_by) for one in calm.decisions)
