"""Sentences with the numbers: why a class is out, why one was taken, and what would help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tandem_operator.performance.hardware import GIB
from tandem_operator.performance.memory import MemoryPlan
from tandem_operator.placement.candidates import Candidate, Refusal, Rejection
from tandem_operator.placement.problem import Problem, Role
from tandem_operator.placement.sizing import OBJECTIVE_SHARE

if TYPE_CHECKING:
    from tandem_operator.placement.pairs import Pair
    from tandem_operator.placement.prospects import Prospect


def does_not_fit(candidate: Candidate, plan: MemoryPlan) -> str:
    """Of the whole replica, so that the sum can be compared with the size of the model."""
    gpus = candidate.gpus
    return (
        f"a replica needs {plan.needed_bytes * gpus / GIB:,.0f} GiB ({memory_terms(plan, gpus)}) but"
        f" {gpus} x {candidate.hardware_class} offer {plan.budget_bytes * gpus / GIB:,.0f} GiB"
        f" ({plan.utilization:g} of {plan.device_bytes * gpus / GIB:,.0f})"
    )


def memory_terms(plan: MemoryPlan, gpus: int) -> str:
    """weights 141 + KV 8 + overhead 3, in GiB of the whole replica."""
    overhead = plan.activations_bytes + plan.collective_bytes + plan.overhead_bytes
    parts = (("weights", plan.weights_bytes), ("KV", plan.required_kv_bytes), ("overhead", overhead))
    return " + ".join(f"{name} {value * gpus / GIB:,.0f}" for name, value in parts)


def too_slow(what: str, seconds: float, objective_s: float, load: str) -> str:
    limit = OBJECTIVE_SHARE * objective_s
    return (
        f"{what} {duration(seconds)} for {load} is above {duration(limit)} ({OBJECTIVE_SHARE:.0%} of the"
        f" {duration(objective_s)} objective)"
    )


def no_size(problem: Problem, role: Role) -> str:
    """When not a single tensor-parallel size is worth a look."""
    wish = problem.wish(role)
    size = wish.tensor_parallel
    if size is not None and size > problem.engine.tensor_parallel:
        return f"{problem.engine.name} runs at most tensor parallelism {problem.engine.tensor_parallel}, not {size}"
    if size is not None:
        return f"tensor parallelism {size} does not divide the model's {problem.shape.heads} query heads"
    return f"no tensor parallelism divides {wish.gpus} devices and the model's {problem.shape.heads} query heads"


def duration(seconds: float) -> str:
    """12 ms, 1.25 s."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.3g} s"


def chosen(role: Role, prospect: Prospect, pair: Pair) -> str:
    """What a replica does at the objective, and what bounds it."""
    if prospect.speed is None:
        return f"the speed of {prospect.offer.name} is not known; it is the only kind that fits"
    if role == "prefill":
        speed = f"{duration(prospect.seconds)} per prompt, {pair.prefill_rate:.2f} requests/s per replica"
    else:
        speed = (
            f"{duration(prospect.seconds)} per step with {prospect.sequences} sequences,"
            f" {pair.decode_rate:.2f} requests/s per replica"
        )
    return f"{speed}; bound by {bound(role, prospect, pair)}"


def bound(role: Role, prospect: Prospect, pair: Pair) -> str:
    """compute, bandwidth, memory, link or batch (the engine's own limit): what a faster replica would need more of."""
    if role == "prefill" and prospect.speed and pair.link.seconds > prospect.seconds:
        return "link"
    return prospect.bound


def refusal(problem: Problem, rejected: dict[Role, tuple[Rejection, ...]], unplaced: Sequence[Role]) -> Refusal:
    """Of the role that has no way at all (of both: prefill), the class that came nearest to one."""
    role: Role = unplaced[0] if unplaced else "prefill"
    items = nearest(rejected[role])
    told = (nearest(rejected["prefill"]), nearest(rejected["decode"]))
    names = problem.wish(role).hardware_classes
    if not items:
        known = ", ".join(sorted(offer.name for offer in problem.offers)) or "none"
        asked = f"{' or '.join(names)} " if names else ""
        return Refusal(f"no hardware class {asked}is there for {role}; there are: {known}", *told)
    first = items[0]
    classes = len({item.hardware_class for item in items})
    others = f" (the nearest of {classes} classes)" if classes > 1 else ""
    return Refusal(f"{role} on {first.hardware_class}{others}: {first.reason}; {advice(problem, role, first)}", *told)


def advice(problem: Problem, role: Role, item: Rejection) -> str:
    """What the user can do about it."""
    wish, steps = problem.wish(role), []
    if wish.gpus or wish.tensor_parallel:
        steps.append(f"remove {role}.gpus and {role}.tensorParallel")
    if problem.quantization == "None" and problem.shape.stored_quantization == "None" and item.stage < 4:
        steps.append("allow quantization Auto")
    if item.stage == 1 and not problem.max_context_tokens:
        steps.append(f"set maxContextTokens below the model's {problem.context_tokens:,}")
    if item.stage >= 3:
        steps.append("relax the objective")
    larger = "faster" if item.stage >= 3 else "larger"
    steps.append(
        f"name more classes in {role}.hardwareClasses" if wish.hardware_classes else f"add nodes of a {larger} class"
    )
    return ", or ".join(steps)


def margin(pair: Pair, runner_up: Pair | None, unit: str) -> str:
    """By how much the choice beats the next."""
    if runner_up is None:
        return "nothing else can do it"
    other = f"prefill on {runner_up.prefill.candidate} with decode on {runner_up.decode.candidate}"
    if runner_up.tier > pair.tier:
        return f"{other} has no room now" if runner_up.short > pair.short else f"the speed of {other} is not known"
    more = runner_up.cost / pair.cost - 1 if pair.cost > 0 else 0.0
    same = "cost the same" if unit == "price" else "take as many devices"
    if abs(more) < 0.0005:
        return f"{other} would {same}"
    if more < 0:
        return f"{other} would be {-more:.1%} cheaper, too little for a restart of what runs"
    return f"next best: {other}, {more:.1%} {'more cost' if unit == 'price' else 'more devices'}"


def losers(
    taken: Pair, role: Role, others: Sequence[Pair], rejected: Sequence[Rejection], unit: str
) -> tuple[Rejection, ...]:
    """One per class that was not taken: how much more it costs, or else why it is out."""
    found: dict[str, Rejection] = {}
    for pair in others:
        mine = pair.side(role)
        if mine.offer.name in (taken.side(role).offer.name, *found):
            continue
        found[mine.offer.name] = Rejection(mine.offer.name, _loses(pair, mine, taken, unit), mine.gpus)
    out = (item for item in nearest(rejected) if item.hardware_class not in (taken.side(role).offer.name, *found))
    once: dict[str, Rejection] = {}
    for item in out:
        once.setdefault(item.hardware_class, item)
    return (*found.values(), *once.values())


def _loses(pair: Pair, mine: Prospect, taken: Pair, unit: str) -> str:
    if pair.unknown > taken.unknown:
        return f"{mine.candidate} fits, but its speed is not known: complete its HardwareClass"
    if pair.short > taken.short:
        return f"{mine.candidate} would do, but {pair.short} replicas find no room now"
    more = pair.cost / taken.cost - 1 if taken.cost > 0 else 0.0
    what = "both pools would cost" if unit == "price" else "both pools would take"
    return f"{mine.candidate} would do, but {what} {more:.1%} more{'' if unit == 'price' else ' devices'}"


def nearest(rejected: Iterable[Rejection]) -> tuple[Rejection, ...]:
    """One per class and quantisation, the nearest miss; the nearest of all comes first."""
    best: dict[tuple[str, str], Rejection] = {}
    for item in sorted(rejected, key=lambda item: (-item.stage, item.excess, item.gpus or 0, item.hardware_class)):
        best.setdefault((item.hardware_class, item.quantization), item)
    return tuple(best.values())
