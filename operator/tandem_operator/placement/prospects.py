"""One role alone: every candidate with its memory, speed and price, or the reason against it."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec
from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.performance.hardware import Hardware, Quantization
from tandem_operator.performance.memory import MemoryPlan, memory
from tandem_operator.performance.roofline import Bound, Terms, prefill_refusal, prior, terms
from tandem_operator.performance.shape import ModelShape
from tandem_operator.placement import explain
from tandem_operator.placement.candidates import (
    Candidate,
    Rejection,
    allowed,
    pipeline_sizes,
    refusal,
    tensor_sizes,
)
from tandem_operator.placement.problem import Offer, Problem, Role
from tandem_operator.placement.sizing import OBJECTIVE_SHARE, decode_sequences


class Speed(msgspec.Struct, frozen=True):
    """What the performance model says of one replica."""

    coefficients: Coefficients
    terms: Terms


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that fits and, as far as its role alone can tell, meets the objective."""

    role: Role
    candidate: Candidate
    offer: Offer
    gpus: int
    """Devices of one replica."""
    prompt_bytes: float
    """KV of one prompt of the load, that a prefill replica hands over."""
    memory: MemoryPlan
    speed: Speed | None
    """None: the class lacks a fact; it stays in the race, last."""
    seconds: float = 0.0
    """Prefill: of the whole prompt. Decode: of one step at `sequences`."""
    sequences: int = 0
    """Decode: in flight on one replica, at the objective."""
    bound: Bound | Literal["batch", "unknown"] = "unknown"
    """What keeps a replica from more: batch is the engine's own limit of sequences in a step."""

    @property
    def hardware(self) -> Hardware:
        return self.offer.hardware


class Prospects(msgspec.Struct, frozen=True):
    """Of one role and quantisation."""

    found: tuple[Prospect, ...]
    rejected: tuple[Rejection, ...]


def find_prospects(problem: Problem, role: Role, quantization: Quantization) -> Prospects:
    """In the order of the offers; whoever ranks them decides."""
    found: list[Prospect] = []
    rejected: list[Rejection] = []
    for offer in allowed(problem, role):
        if reason := refusal(problem, role, offer, quantization):
            rejected.append(Rejection(offer.name, reason, None, quantization))
            continue
        fits = False
        sizes = tensor_sizes(problem, role, offer)
        for size in sizes:
            fits = _try(problem, role, offer, Candidate(offer.name, size, 1, quantization), found, rejected) or fits
        if not fits:
            staged = ((size, stages) for size in sizes for stages in pipeline_sizes(problem, role, offer, size))
            for size, stages in sorted(staged, key=lambda pair: (pair[0] * pair[1], pair[1])):
                _try(problem, role, offer, Candidate(offer.name, size, stages, quantization), found, rejected)
        if not sizes:
            rejected.append(Rejection(offer.name, explain.no_size(problem, role), None, quantization))
    return Prospects(tuple(found), tuple(rejected))


def _try(
    problem: Problem, role: Role, offer: Offer, candidate: Candidate,
    found: list[Prospect], rejected: list[Rejection],
) -> bool:  # fmt: skip
    """Whether the memory fits. The candidate goes to `found` or, with the reason, to `rejected`."""
    wish = problem.wish(role)
    if wish.gpus is not None and candidate.gpus != wish.gpus:
        return False
    result = examine(problem, role, offer, candidate)
    if isinstance(result, Prospect):
        found.append(result)
        return True
    rejected.append(result)
    return result.stage > 1


def examine(problem: Problem, role: Role, offer: Offer, candidate: Candidate) -> Prospect | Rejection:
    """The filters in their order: memory, links, objective."""
    hardware, shape, load = offer.hardware, problem.shape, problem.load
    plan = _memory(shape, hardware, candidate, max(problem.context_tokens, load.prompt_tokens + load.output_tokens))

    def reject(reason: str, stage: int, excess: float) -> Rejection:
        return Rejection(offer.name, reason, candidate.gpus, candidate.quantization, stage, excess)

    if not plan.fits:
        return reject(explain.does_not_fit(candidate, plan), 1, plan.needed_bytes / plan.budget_bytes)
    fixed = problem.wish(role).tensor_parallel is not None
    if role == "prefill" and not fixed and (crossing := prefill_refusal(hardware, candidate.tensor_parallel)):
        return reject(crossing, 2, 1.0)
    speed = _speed(shape, hardware, candidate, load.prompt_tokens + load.output_tokens // 2)
    prospect = Prospect(
        role=role, candidate=candidate, offer=offer, gpus=candidate.gpus, memory=plan, speed=speed,
        prompt_bytes=shape.sequence_bytes(load.prompt_tokens),
    )  # fmt: skip
    if speed is None:
        return prospect
    measured = _prefill(problem, prospect, speed) if role == "prefill" else _decode(problem, prospect, speed)
    return measured if isinstance(measured, Prospect) else reject(measured[0], 3, measured[1])


def _prefill(problem: Problem, prospect: Prospect, speed: Speed) -> Prospect | tuple[str, float]:
    """Or the sentence against it, and the seconds over the objective's."""
    prompt, objective = problem.load.prompt_tokens, problem.objective
    seconds = speed.coefficients.prefill_seconds(prompt)
    if seconds > OBJECTIVE_SHARE * objective.ttft_s:
        reason = explain.too_slow("TTFT", seconds, objective.ttft_s, f"{prompt:,} prompt tokens")
        return reason, seconds / objective.ttft_s
    return msgspec.structs.replace(prospect, seconds=seconds, bound=speed.terms.prefill_bound(prompt))


def _decode(problem: Problem, prospect: Prospect, speed: Speed) -> Prospect | tuple[str, float]:
    load, objective, c = problem.load, problem.objective, speed.coefficients
    context = load.prompt_tokens + load.output_tokens / 2
    stages = prospect.candidate.pipeline_parallel
    timely = decode_sequences(c, OBJECTIVE_SHARE * objective.tpot_s, context)
    if not timely:
        seconds = c.step_seconds(1, round(context))
        reason = explain.too_slow("TPOT", seconds, objective.tpot_s, f"a single sequence of {context:,.0f} tokens")
        return reason, seconds / objective.tpot_s
    sequences = min(timely * stages, max(1, _held(problem, prospect)))
    step = -(-sequences // stages)
    bound: Bound | Literal["batch"] = "memory" if sequences < timely * stages else "bandwidth"
    if bound == "bandwidth":
        bound = "batch" if step >= c.max_sequences else speed.terms.decode_bound(step, round(step * context))
    seconds = c.step_seconds(step, round(step * context))
    return msgspec.structs.replace(prospect, seconds=seconds, sequences=sequences, bound=bound)


def _held(problem: Problem, prospect: Prospect) -> int:
    """Sequences of the load's length that find room for their KV."""
    load, candidate, shape = problem.load, prospect.candidate, problem.shape
    stage = -(-shape.layers // candidate.pipeline_parallel) / shape.layers
    tokens = load.prompt_tokens + load.output_tokens
    each = shape.sequence_bytes(tokens, tensor_parallel=candidate.tensor_parallel) * stage
    return int(prospect.memory.kv_room_bytes / each) if each else 1 << 30


@lru_cache(maxsize=1 << 14)
def _memory(shape: ModelShape, hardware: Hardware, candidate: Candidate, context_tokens: int) -> MemoryPlan:
    return memory(
        shape, hardware, candidate.tensor_parallel, candidate.quantization,
        pipeline_parallel=candidate.pipeline_parallel, context_tokens=context_tokens,
    )  # fmt: skip


@lru_cache(maxsize=1 << 14)
def _speed(shape: ModelShape, hardware: Hardware, candidate: Candidate, context_tokens: int) -> Speed | None:
    """Of one pipeline: stages work one after the other on a token, so that only the rate grows with them."""
    where = (shape, hardware, candidate.tensor_parallel, candidate.quantization)
    try:
        return Speed(prior(*where, context_tokens=context_tokens), terms(*where, context_tokens=context_tokens))
    except ValueError:
        return None
