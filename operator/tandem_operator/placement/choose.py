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
from tandem_operator.placement.pairs import KVLink, Pair, make_pair
from tandem_operator.placement.pricing import CostUnit, Pricing, pricing_of
from tandem_operator.placement.problem import ROLES, Problem, Role
from tandem_operator.placement.prospects import Prospect, Prospects, find_prospects
from tandem_operator.placement.rank import best_pairs, connectable, price_per_hour

WORTH_A_CHANGE: Final = 0.15
"""What runs stays unless another choice is this much cheaper: prices and predictions are no better known."""


class Current(msgspec.Struct, frozen=True):
    """What runs now."""

    prefill: Candidate
    decode: Candidate
    settled: tuple[Role, ...] = ()
    """Roles that have pods on nodes: they are not moved for want of room for more."""

    def is_pair(self, pair: Pair) -> bool:
        return (self.prefill, self.decode) == (pair.prefill.candidate, pair.decode.candidate)


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


def hold_contests(problem: Problem, pricing: Pricing) -> list[Contest]:
    """One per quantisation: both pools hold the same weights."""
    contests = []
    for quantization in quantizations(problem):
        prefill = find_prospects(problem, "prefill", quantization)
        decode = find_prospects(problem, "decode", quantization)
        best, refused = best_pairs(problem, prefill.found, decode.found, pricing)
        contests.append(Contest(prefill, decode, tuple(best), tuple(refused)))
    return contests


class Survey(msgspec.Struct, frozen=True):
    """All that was looked at; `taken` is None when nothing can work."""

    pricing: Pricing
    contests: tuple[Contest, ...]
    taken: Pair | None
    runner_up: Pair | None = None

    @property
    def unit(self) -> CostUnit:
        return self.pricing.unit

    def others(self, problem: Problem, role: Role) -> list[Pair]:
        """What else the role could run on, the other role as taken, best first."""
        found = (one for contest in self.contests for one in contest.prospects(role).found)
        return swap(problem, self.taken, role, found, self.pricing) if self.taken else []

    def rejected(self, role: Role) -> tuple[Rejection, ...]:
        """Pairs that cannot work are told of the prefill side."""
        alone = (item for contest in self.contests for item in contest.prospects(role).rejected)
        paired = (item for contest in self.contests for item in contest.refused) if role == "prefill" else ()
        return (*alone, *paired)


def survey(problem: Problem, current: Current | None = None) -> Survey:
    """The cheapest pair that meets the objective; what runs is kept unless it cannot stay or is 15 % too dear."""
    pricing = pricing_of(problem)
    contests = hold_contests(problem, pricing)
    pairs = sorted((pair for contest in contests for pair in contest.best), key=Pair.key)
    if not pairs:
        return Survey(pricing, tuple(contests), None)
    best = pairs[0]
    taken = _reluctant(problem, contests, best, current, pricing) if current else best
    second = best if taken.key() != best.key() else next(iter(pairs[1:]), None)
    return Survey(pricing, tuple(contests), taken, second)


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
        kept=current is not None and current.is_pair(taken),
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


def _reluctant(problem: Problem, contests: list[Contest], best: Pair, current: Current, pricing: Pricing) -> Pair:
    """Both pools as they are; else one of them as it is; else the best."""

    def find(*keep: Role) -> list[Pair]:
        found: list[Pair] = []
        for contest in contests:
            rows: list[list[Prospect]] = [
                [one for one in contest.prospects(role).found if role not in keep or one.candidate == now]
                for role, now in zip(ROLES, (current.prefill, current.decode), strict=True)
            ]
            sides = ((one, other) for one in rows[0] for other in rows[1] if connectable(problem, one, other))
            found += [pair for both in sides if isinstance(pair := make_pair(problem, *both, pricing), Pair)]
        return [pair for pair in found if _stays(pair, best, settled=set(keep) <= set(current.settled))]

    if both := find("prefill", "decode"):
        return min(both, key=Pair.key)
    return min([*find("prefill"), *find("decode")], key=Pair.key, default=best)


def _stays(pair: Pair, best: Pair, settled: bool) -> bool:
    """Whether `best` is not worth the restart: pods that stand are left alone though there is no room for more."""
    near = pair.cost <= best.cost / (1 - WORTH_A_CHANGE)
    return near and (pair.unknown <= best.unknown if settled else pair.tier <= best.tier)
