"""The cheapest pair of prospects, exactly: pairs are looked at from the cheapest bound on, until none can be better."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from operator import itemgetter

from tandem_operator.placement.candidates import Rejection
from tandem_operator.placement.pairs import Pair, least_cost, make_pair
from tandem_operator.placement.pricing import Pricing
from tandem_operator.placement.problem import Problem
from tandem_operator.placement.prospects import Prospect

KEPT_PAIRS = 2
"""The winner and the runner-up, who says by how much it won."""


def best_pairs(
    problem: Problem, prefill: tuple[Prospect, ...], decode: tuple[Prospect, ...], pricing: Pricing
) -> tuple[list[Pair], list[Rejection]]:
    """The best pairs, best first, and why pairs were refused (told of the prefill side). Cost alone can end the search
    only once pairs with room and known speed are at hand."""
    best: list[tuple[tuple[object, ...], Pair]] = []
    refused: dict[str, Rejection] = {}
    for bound, one, other in _by_bound(problem, prefill, decode, pricing):
        full = len(best) == KEPT_PAIRS
        if full and best[-1][1].tier == (0, 0) and bound > best[-1][1].cost * (1 + 1e-9):
            break
        pair = make_pair(problem, one, other, pricing)
        if isinstance(pair, str):
            name = one.offer.name
            refused.setdefault(name, Rejection(name, f"with decode on {other.candidate}: {pair}", one.gpus, stage=4))
            continue
        key = pair.key()
        if not full or key < best[-1][0]:
            best.append((key, pair))
            best.sort(key=itemgetter(0))
            del best[KEPT_PAIRS:]
    return [pair for _, pair in best], list(refused.values())


def _by_bound(
    problem: Problem, prefill: tuple[Prospect, ...], decode: tuple[Prospect, ...], pricing: Pricing
) -> Iterator[tuple[float, Prospect, Prospect]]:
    """All pairs that the engine can connect, by the least that they can cost."""
    rows = sorted((least_cost(problem, one, pricing), index) for index, one in enumerate(prefill))
    columns = sorted((least_cost(problem, other, pricing), index) for index, other in enumerate(decode))
    if not rows or not columns:
        return
    heap = [(cost + columns[0][0], index, 0, row) for row, (cost, index) in enumerate(rows)]
    heapq.heapify(heap)
    while heap:
        bound, index, column, row = heapq.heappop(heap)
        one, other = prefill[index], decode[columns[column][1]]
        if connectable(problem, one, other):
            yield bound, one, other
        if column + 1 < len(columns):
            heapq.heappush(heap, (rows[row][0] + columns[column + 1][0], index, column + 1, row))


def connectable(problem: Problem, one: Prospect, other: Prospect) -> bool:
    """One image runs both pools, so both take devices of one kind; some hand-offs want equal shards."""
    if one.offer.resource != other.offer.resource:
        return False
    same = one.candidate.tensor_parallel == other.candidate.tensor_parallel
    return same or not problem.engine.same_tensor_parallel


def price_per_hour(prospect: Prospect, replicas: int) -> float | None:
    """Of so many replicas; None: nobody told a price."""
    if prospect.hardware.price_per_hour is None:
        return None
    return prospect.hardware.price_per_hour * prospect.gpus * replicas
