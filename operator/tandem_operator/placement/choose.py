"""The choice: hardware class, devices and quantisation per role, with reasons. Pure, deterministic, and reluctant to
change what runs: a change restarts everything."""

from __future__ import annotations

from typing import Final

import msgspec
from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.performance.memory import MemoryPlan
from tandem_operator.placement import explain
from tandem_operator.placement.candidates import Candidate, Refusal, Rejection, quantizations
from tandem_operator.placement.others import alternatives, swap
from tandem_operator.placement.pairs import CostUnit, KVLink, Pair, make_pair
from tandem_operator.placement.problem import ROLES, Problem, Role
from tandem_operator.placement.prospects import Prospects, find_prospects
from tandem_operator.placement.rank import best_pairs, connectable, cost_unit, price_per_hour

WORTH_A_CHANGE: Final = 0.15
"""What runs stays unless another choice is this much cheaper: prices and predictions are no better known."""


class Current(msgspec.Struct, frozen=True):
    """What runs now."""

    prefill: Candidate
    decode: Candidate


class RoleChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One pool."""

    candidate: Candidate
    resource: str
    alternatives: tuple[str, ...] = ()
    """Other classes on which the same replica meets the objective for nearly the same cost, best first."""
    replicas: int
    memory: MemoryPlan
    coefficients: Coefficients | None
    seconds: float
    sequences: int
    rate: float
    """Requests per second of one replica within the objective."""
    price_per_hour: float | None
    """Of the whole pool."""
    bound: str
    why: str
    rejected: tuple[Rejection, ...]

    @property
    def gpus(self) -> int:
        return self.candidate.gpus


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Where both pools go."""

    prefill: RoleChoice
    decode: RoleChoice
    link: KVLink
    ttft_s: float
    """Without queueing."""
    tpot_s: float
    cost: float
    cost_unit: CostUnit
    short: int
    """Replicas that find no place now: their pods wait for capacity."""
    why: str
    """By how much it beats the next."""
    kept: bool
    """It is what runs already."""

    def role(self, role: Role) -> RoleChoice:
        return self.prefill if role == "prefill" else self.decode

    @property
    def current(self) -> Current:
        """To be given to the next `choose`."""
        return Current(self.prefill.candidate, self.decode.candidate)

    @property
    def price_per_hour(self) -> float | None:
        """Both pools."""
        prices = [self.prefill.price_per_hour, self.decode.price_per_hour]
        return None if None in prices else sum(price for price in prices if price is not None)


class Contest(msgspec.Struct, frozen=True):
    """Prospects and best pairs of one quantisation."""

    prefill: Prospects
    decode: Prospects
    best: tuple[Pair, ...]
    refused: tuple[Rejection, ...]

    def prospects(self, role: Role) -> Prospects:
        return self.prefill if role == "prefill" else self.decode


def hold_contests(problem: Problem, unit: CostUnit) -> list[Contest]:
    """One per quantisation: both pools hold the same weights."""
    contests = []
    for quantization in quantizations(problem):
        prefill = find_prospects(problem, "prefill", quantization)
        decode = find_prospects(problem, "decode", quantization)
        best, refused = best_pairs(problem, prefill.found, decode.found, unit)
        contests.append(Contest(prefill, decode, tuple(best), tuple(refused)))
    return contests


class Survey(msgspec.Struct, frozen=True):
    """All that was looked at; `taken` is None when nothing can work."""

    unit: CostUnit
    contests: tuple[Contest, ...]
    taken: Pair | None
    runner_up: Pair | None = None

    def others(self, problem: Problem, role: Role) -> list[Pair]:
        """What else the role could run on, the other role as taken, best first."""
        found = (one for contest in self.contests for one in contest.prospects(role).found)
        return swap(problem, self.taken, role, found, self.unit) if self.taken else []

    def rejected(self, role: Role) -> tuple[Rejection, ...]:
        """Pairs that cannot work are told of the prefill side."""
        alone = (item for contest in self.contests for item in contest.prospects(role).rejected)
        paired = (item for contest in self.contests for item in contest.refused) if role == "prefill" else ()
        return (*alone, *paired)


def survey(problem: Problem, current: Current | None = None) -> Survey:
    """The cheapest pair that meets the objective; what runs is kept unless it cannot stay or is 15 % too dear."""
    unit = cost_unit(problem)
    contests = hold_contests(problem, unit)
    pairs = sorted((pair for contest in contests for pair in contest.best), key=Pair.key)
    if not pairs:
        return Survey(unit, tuple(contests), None)
    best = pairs[0]
    taken = _reluctant(problem, contests, best, current, unit) if current else best
    second = best if taken.key() != best.key() else next(iter(pairs[1:]), None)
    return Survey(unit, tuple(contests), taken, second)


def choose(problem: Problem, current: Current | None = None) -> Choice | Refusal:
    """What `survey` takes, with its reasons."""
    return decide(problem, survey(problem, current), current)


def decide(problem: Problem, found: Survey, current: Current | None = None) -> Choice | Refusal:
    """The answer in full, of a survey that was made."""
    taken = found.taken
    if taken is None:
        unplaced = [role for role in ROLES if not any(contest.prospects(role).found for contest in found.contests)]
        return explain.refusal(problem, {role: found.rejected(role) for role in ROLES}, unplaced)
    return Choice(
        prefill=_pool(problem, found, taken, "prefill"),
        decode=_pool(problem, found, taken, "decode"),
        link=taken.link,
        ttft_s=taken.ttft_s,
        tpot_s=taken.decode.seconds,
        cost=taken.cost,
        cost_unit=found.unit,
        short=taken.short,
        why=explain.margin(taken, found.runner_up, found.unit),
        kept=current is not None and current == Current(taken.prefill.candidate, taken.decode.candidate),
    )


def _pool(problem: Problem, found: Survey, taken: Pair, role: Role) -> RoleChoice:
    prospect, others = taken.side(role), found.others(problem, role)
    replicas = taken.prefill_replicas if role == "prefill" else taken.decode_replicas
    return RoleChoice(
        candidate=prospect.candidate,
        resource=prospect.offer.resource,
        alternatives=alternatives(problem, taken, role, others, WORTH_A_CHANGE),
        replicas=replicas,
        memory=prospect.memory,
        coefficients=prospect.speed.coefficients if prospect.speed else None,
        seconds=prospect.seconds,
        sequences=prospect.sequences,
        rate=taken.prefill_rate if role == "prefill" else taken.decode_rate,
        price_per_hour=price_per_hour(prospect, replicas),
        bound=explain.bound(role, prospect, taken),
        why=explain.chosen(role, prospect, taken),
        rejected=explain.losers(taken, role, others, found.rejected(role), found.unit),
    )


def _reluctant(problem: Problem, contests: list[Contest], best: Pair, current: Current, unit: CostUnit) -> Pair:
    """Both pools as they are; else one of them as it is; else the best. The tier of the best is never given up."""
    limit = best.cost / (1 - WORTH_A_CHANGE)

    def find(keep_prefill: bool, keep_decode: bool) -> list[Pair]:
        found = []
        for contest in contests:
            rows = [p for p in contest.prefill.found if not keep_prefill or p.candidate == current.prefill]
            columns = [p for p in contest.decode.found if not keep_decode or p.candidate == current.decode]
            sides = ((one, other) for one in rows for other in columns if connectable(problem, one, other))
            made = (make_pair(problem, *both, unit) for both in sides)
            found += [pair for pair in made if isinstance(pair, Pair) and pair.tier <= best.tier and pair.cost <= limit]
        return found

    if both := find(True, True):
        return min(both, key=Pair.key)
    return min([*find(True, False), *find(False, True)], key=Pair.key, default=best)
