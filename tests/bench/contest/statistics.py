"""Intervals by bootstrap: seeds are drawn again, and within a seed blocks of a minute, as neighbours are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean
from typing import Final

from tandem_operator.simulation.outcome import Outcome

DRAWS: Final = 1000
COVER: Final = 0.95
BLOCK_S: Final = 60.0
Figure = Callable[[Outcome], float]
Interval = tuple[float, float]
Block = tuple[float, float]
"""Requests met, requests that arrived."""


def blocks(outcome: Outcome) -> list[Block]:
    """Of one run, those of its reported part."""
    series = outcome.series
    start = max((series.t_s[-1] + series.step_s - outcome.seconds) if series.t_s else 0.0, 0.0)
    found: dict[int, list[float]] = {}
    for at, arrivals, attained in zip(series.t_s, series.arrivals_per_s, series.attainment, strict=True):
        if attained is None or at < start - series.step_s:
            continue
        block = found.setdefault(int(at / BLOCK_S), [0.0, 0.0])
        block[0] += attained * arrivals
        block[1] += arrivals
    return [(met, count) for met, count in found.values() if count > 0]


def attainment_interval(outcomes: Sequence[Outcome], seed: int = 0) -> Interval:
    """Of the mean attainment over seeds, moved so that it lies around the exact figure."""
    cut = [blocks(outcome) for outcome in outcomes]
    cut = [part for part in cut if part]
    exact = fmean(outcome.attainment for outcome in outcomes)
    if not cut:
        return exact, exact
    random = Random(seed)
    drawn = sorted(fmean(_again(random.choice(cut), random) for _ in cut) for _ in range(DRAWS))
    rough = fmean(sum(met for met, _ in part) / sum(count for _, count in part) for part in cut)
    low, high = _ends(drawn)
    return min(max(low - rough + exact, 0.0), exact), max(min(high - rough + exact, 1.0), exact)


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Of the mean over seeds; one seed has no width."""
    random = Random(seed)
    return _ends(sorted(fmean(random.choice(values) for _ in values) for _ in range(DRAWS)))


def paired(ours: Sequence[Outcome], theirs: Sequence[Outcome], figure: Figure) -> tuple[float, Interval]:
    """Mean of our figure minus theirs, seed by seed, and its interval."""
    by_seed = {outcome.seed: figure(outcome) for outcome in theirs}
    gaps = [figure(outcome) - by_seed[outcome.seed] for outcome in ours if outcome.seed in by_seed]
    return (fmean(gaps), interval(gaps)) if gaps else (0.0, (0.0, 0.0))


def _again(part: Sequence[Block], random: Random) -> float:
    drawn = random.choices(part, k=len(part))
    return sum(met for met, _ in drawn) / sum(count for _, count in drawn)


def _ends(ordered: Sequence[float]) -> Interval:
    tail = int(len(ordered) * (1 - COVER) / 2)
    return ordered[tail], ordered[-1 - tail]
