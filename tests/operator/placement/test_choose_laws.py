"""What holds of every choice, whatever the model, the objective and the fleet."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.placement.choose import Choice, Current, choose
from tandem_operator.placement.problem import Problem

from tests.operator.placement.exhaustive import random_problem
from tests.operator.placement.fleets import change

seeds = st.integers(1000, 1_000_000)
laws = settings(max_examples=30, deadline=None)


def with_offers(problem: Problem, *offers: object) -> Problem:
    return change(problem, offers=tuple(offers))


@laws
@given(seeds, st.floats(1.0, 4.0))
def test_more_memory_never_makes_a_fit_fail(seed: int, factor: float) -> None:
    problem = random_problem(seed)
    before = choose(problem)
    larger = [
        change(offer, hardware=change(offer.hardware, memory_bytes=int(offer.hardware.memory_bytes * factor)))
        for offer in problem.offers
    ]
    after = choose(with_offers(problem, *larger))
    if isinstance(before, Choice):
        assert isinstance(after, Choice), after.reason


@laws
@given(seeds, st.integers(0, 6), st.floats(0.1, 0.99))
def test_a_cheaper_identical_class_is_never_passed_over(seed: int, which: int, factor: float) -> None:
    problem = random_problem(seed)
    problem = change(problem, decode=change(problem.decode, hardware_classes=()))
    offer = problem.offers[which % len(problem.offers)]
    hardware = change(offer.hardware, name="twin", price_per_hour=(offer.hardware.price_per_hour or 1) * factor)
    before, after = choose(problem), choose(with_offers(problem, *problem.offers, change(offer, hardware=hardware)))
    if not isinstance(before, Choice):
        return
    assert isinstance(after, Choice)
    assert (after.short, after.cost) <= (before.short, before.cost * (1 + 1e-9))
    if after.short == 0 and after.prefill.candidate.hardware_class != after.decode.candidate.hardware_class:
        used = {after.prefill.candidate.hardware_class, after.decode.candidate.hardware_class}
        assert offer.name not in used or "twin" in used


@laws
@given(seeds, st.randoms(use_true_random=False))
def test_the_order_of_the_offers_does_not_matter(seed: int, shuffler: random.Random) -> None:
    problem = random_problem(seed)
    offers = list(problem.offers)
    shuffler.shuffle(offers)
    one, other = choose(problem), choose(with_offers(problem, *offers))
    if isinstance(one, Choice) and isinstance(other, Choice):
        assert (one.current, one.cost, one.short) == (other.current, other.cost, other.short)
        assert one.prefill.alternatives == other.prefill.alternatives
    else:
        assert type(one) is type(other)


@laws
@given(seeds, st.floats(1.0, 3.0))
def test_a_looser_objective_never_costs_more(seed: int, factor: float) -> None:
    problem = random_problem(seed)
    loose = change(problem.objective, ttft_s=problem.objective.ttft_s * factor, tpot_s=problem.objective.tpot_s)
    before, after = choose(problem), choose(change(problem, objective=loose))
    if isinstance(before, Choice):
        assert isinstance(after, Choice)
        assert (after.short, after.cost) <= (before.short, before.cost * (1 + 1e-9))


@laws
@given(seeds)
def test_what_was_chosen_is_kept_and_small_changes_of_price_move_nothing(seed: int) -> None:
    problem = random_problem(seed)
    before = choose(problem)
    if not isinstance(before, Choice):
        return
    again = choose(problem, before.current)
    assert isinstance(again, Choice)
    assert again.kept
    assert again.current == before.current
    draw = random.Random(seed)
    nudged = [
        change(offer, hardware=change(offer.hardware, price_per_hour=offer.hardware.price_per_hour * f))  # type: ignore[operator]
        for offer in problem.offers
        for f in [draw.uniform(0.96, 1.04)]
    ]
    after = choose(with_offers(problem, *nudged), before.current)
    assert isinstance(after, Choice)
    assert after.current == before.current


@laws
@given(seeds)
def test_every_rejection_says_a_number_or_a_name_and_every_choice_why(seed: int) -> None:
    result = choose(random_problem(seed))
    if isinstance(result, Choice):
        for pool in (result.prefill, result.decode):
            assert "bound by" in pool.why
            assert pool.candidate.hardware_class not in {item.hardware_class for item in pool.rejected}
        rejected = (*result.prefill.rejected, *result.decode.rejected)
    else:
        assert any(sign.isdigit() for sign in result.reason) or "no hardware class" in result.reason
        rejected = (*result.prefill, *result.decode)
    assert all(len(item.reason) > 20 for item in rejected)


@laws
@given(seeds, seeds)
def test_a_plan_of_another_model_is_never_kept_by_mistake(seed: int, other: int) -> None:
    problem, foreign = random_problem(seed), choose(random_problem(other))
    if not isinstance(foreign, Choice):
        return
    result = choose(problem, Current(foreign.prefill.candidate, foreign.decode.candidate))
    fresh = choose(problem)
    assert type(result) is type(fresh)
    if isinstance(result, Choice) and isinstance(fresh, Choice):
        assert result.short == fresh.short
        assert result.cost <= fresh.cost / 0.85 * (1 + 1e-9)
