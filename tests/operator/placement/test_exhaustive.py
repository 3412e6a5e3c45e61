"""The choice against brute force with the same predictor, over hundreds of models, objectives and fleets."""

from __future__ import annotations

import pytest
from tandem_operator.placement.choose import Choice, choose
from tandem_operator.placement.problem import Problem

from tests.operator.placement.exhaustive import random_problem, search

CASES = 500
WORST_EXCESS = 0.03


def excess(problem: Problem) -> float | None:
    """How much dearer the choice is than the best there is; None when both find that nothing works."""
    want, got = search(problem), choose(problem)
    if want is None:
        assert not isinstance(got, Choice), f"nothing is feasible, but {got} was chosen"
        return None
    assert isinstance(got, Choice), f"{want} exists, but: {got.reason}"
    assert got.short == want.short, "room comes before cost"
    return got.cost / want.cost - 1


@pytest.mark.parametrize("part", range(5))
def test_the_choice_costs_at_most_three_percent_more_than_the_best_there_is(part: int) -> None:
    found = [excess(random_problem(seed)) for seed in range(part, CASES, 5)]
    solved = [value for value in found if value is not None]
    assert max(solved) <= WORST_EXCESS
    assert min(solved) > -1e-6, "brute force missed something"
    assert len(solved) > 40, "too few of the problems have a solution"
