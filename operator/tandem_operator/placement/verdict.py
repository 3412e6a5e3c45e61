"""Whether to take a deployment, by the engine that places it: a refusal when no hardware can do it, else doubts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from tandem_operator.performance.roofline import prefill_refusal
from tandem_operator.placement.candidates import Refusal, Rejection
from tandem_operator.placement.choose import Choice, choose
from tandem_operator.placement.explain import duration, memory_terms
from tandem_operator.placement.problem import ROLES, Problem
from tandem_operator.placement.sizing import OBJECTIVE_SHARE

TOLD_CLASSES: Final = 4
"""Of each role: a person reads them in a terminal; `tandem plan` shows all."""


class Verdict(msgspec.Struct, frozen=True):
    """`refusal` is empty for what is taken; each warning is one sentence with its numbers."""

    refusal: str = ""
    warnings: tuple[str, ...] = ()


def judge(problem: Problem) -> Verdict:
    """Refused is what could not even work if every allowed class had nodes and predictions were exact."""
    outcome = choose(problem)
    if isinstance(outcome, Choice):
        return Verdict(warnings=tuple(doubts(problem, outcome)))
    assumed = assume_nodes(problem)
    if isinstance(choose(assumed), Choice):
        return Verdict(warnings=(f"not placed until there are nodes: {outcome.reason}",))
    if isinstance(choose(without_margin(assumed)), Choice):
        reason = outcome.reason if assumed is problem else _reason(assumed)
        return Verdict(warnings=(f"doubtful, and not placed as it is: {reason}",))
    refused = choose(assumed)
    assert isinstance(refused, Refusal)
    return Verdict(refusal="\n".join([refused.reason, *_others(refused)]))


def assume_nodes(problem: Problem) -> Problem:
    """As if there were nodes of the classes that the user named, or of all when the cluster has no devices at all.

    A deployment may be applied before its nodes are; that nothing in sight could ever run it is another matter.
    """
    named = {name for role in ROLES for name in problem.wish(role).hardware_classes}
    none = not any(offer.largest_node for offer in problem.offers)
    offers = tuple(
        msgspec.structs.replace(offer, largest_node=offer.hardware.devices_per_node)
        if not offer.largest_node and (none or offer.name in named)
        else offer
        for offer in problem.offers
    )
    return problem if offers == problem.offers else msgspec.structs.replace(problem, offers=offers)


def without_margin(problem: Problem) -> Problem:
    """The objective itself as the limit, not the share of it that `choose` keeps to."""
    objective = problem.objective
    relaxed = msgspec.structs.replace(
        objective, ttft_s=objective.ttft_s / OBJECTIVE_SHARE, tpot_s=objective.tpot_s / OBJECTIVE_SHARE
    )
    return msgspec.structs.replace(problem, objective=relaxed)


def doubts(problem: Problem, choice: Choice) -> Iterator[str]:
    """What may go wrong with a choice that was made."""
    for role in ROLES:
        pool = choice.role(role)
        offer = next(offer for offer in problem.offers if offer.name == pool.candidate.hardware_class)
        if pool.coefficients is None:
            yield (
                f"{role}: the speed of {offer.name} is not known, so that nothing is said about the objective; it holds"
                f" the model ({memory_terms(pool.memory, pool.gpus)} GiB): complete its HardwareClass"
            )
        elif not offer.hardware.verified:
            yield (
                f"{role}: {duration(pool.seconds)} is predicted on {pool.candidate} from figures of {offer.name} that"
                " were not verified; see its annotations"
            )
        wish = problem.wish(role)
        if (
            role == "prefill"
            and wish.tensor_parallel
            and (crossing := prefill_refusal(offer.hardware, wish.tensor_parallel))
        ):
            yield f"prefill: {crossing}; done because prefill.tensorParallel says so"
    if choice.short:
        wanted = ", ".join(
            f"{choice.role(role).replicas} x {choice.role(role).gpus} {choice.role(role).candidate.hardware_class}"
            f" for {role}"
            for role in ROLES
        )
        plural = "replica finds" if choice.short == 1 else "replicas find"
        yield f"{choice.short} {plural} no room now ({wanted}): the pods wait for capacity"


def _reason(problem: Problem) -> str:
    outcome = choose(problem)
    return outcome.reason if isinstance(outcome, Refusal) else ""


def _others(refused: Refusal) -> Iterator[str]:
    """Of each role the nearest misses, but for that which the reason tells."""
    for role, items in zip(ROLES, (refused.prefill, refused.decode), strict=True):
        told: list[Rejection] = [item for item in items if item.reason not in refused.reason][:TOLD_CLASSES]
        for item in told:
            weights = "" if item.quantization == "None" else f" {item.quantization}"
            yield f"  {role}, {item.hardware_class}{weights}: {item.reason}"
