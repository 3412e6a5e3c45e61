"""What else one role could run on while the other stays as taken: alternatives for the scheduler, and the losers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tandem_operator.placement.pairs import Pair, make_pair
from tandem_operator.placement.pricing import Pricing
from tandem_operator.placement.problem import Problem, Role
from tandem_operator.placement.prospects import Prospect
from tandem_operator.placement.rank import connectable


def swap(problem: Problem, taken: Pair, role: Role, found: Iterable[Prospect], pricing: Pricing) -> list[Pair]:
    """Pairs with another prospect for `role`, best first."""
    pairs = []
    for prospect in found:
        if prospect.candidate == taken.side(role).candidate:
            continue
        sides = (prospect, taken.decode) if role == "prefill" else (taken.prefill, prospect)
        if sides[0].candidate.quantization != sides[1].candidate.quantization or not connectable(problem, *sides):
            continue
        pair = make_pair(problem, *sides, pricing)
        if isinstance(pair, Pair):
            pairs.append(pair)
    return sorted(pairs, key=Pair.key)


def alternatives(
    problem: Problem, taken: Pair, role: Role, others: Sequence[Pair], worth_a_change: float
) -> tuple[str, ...]:
    """Classes on which the very same replica would do: of those that the user named all, of others those whose
    cost is near. They stand in the pods' node affinity behind the class that was taken."""
    mine = taken.side(role)
    limit = taken.cost / (1 - worth_a_change)
    named = problem.wish(role).hardware_classes
    near = []
    for pair in others:
        other = pair.side(role)
        same = (other.candidate.tensor_parallel, other.candidate.pipeline_parallel, other.offer.resource) == (
            mine.candidate.tensor_parallel, mine.candidate.pipeline_parallel, mine.offer.resource,
        )  # fmt: skip
        if same and other.candidate.quantization == mine.candidate.quantization and not pair.unknown:
            near += [pair] if named or pair.cost <= limit else []
    return tuple(pair.side(role).offer.name for pair in sorted(near, key=lambda pair: (pair.cost, pair.key())))
