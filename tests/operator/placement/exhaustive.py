"""The choice by brute force, written apart from the product: every pair of every size, without bounds.

It shares the predictor (memory, prior, queue formulas) and nothing of the search. Random problems stand here too.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from tandem_operator.performance.memory import memory
from tandem_operator.performance.roofline import prior
from tandem_operator.placement.problem import Load, Objective, Offer, Problem, Wish
from tandem_operator.placement.sizing import decode_replicas, decode_sequences, prefill_servers, prefill_utilization

from tests.operator.placement import fleets


@dataclass(frozen=True)
class Answer:
    """Cheapest feasible pair: replicas without room, cost per hour."""

    short: int
    cost: float


@dataclass(frozen=True)
class Side:
    """One way to run one role."""

    offer: Offer
    tensor: int
    stages: int
    quantization: str
    seconds: float
    sequences: int

    @property
    def gpus(self) -> int:
        return self.tensor * self.stages


def search(problem: Problem) -> Answer | None:
    """None: no pair is feasible."""
    names = ("None", "FP8", "Int8Dynamic", "Int8") if problem.quantization == "Auto" else (problem.quantization,)
    if problem.shape.stored_quantization != "None" and problem.quantization == "Auto":
        names = ("None",)
    best: Answer | None = None
    for quantization in names:
        rows, columns = (list(_sides(problem, role, quantization)) for role in ("prefill", "decode"))
        for one, other in itertools.product(rows, columns):
            answer = _pair(problem, one, other, best)
            if answer and (best is None or (answer.short, answer.cost) < (best.short, best.cost)):
                best = answer
    return best


def _sides(problem: Problem, role: str, quantization: str) -> Iterator[Side]:
    wish = problem.prefill if role == "prefill" else problem.decode
    weights = problem.shape.stored_quantization if quantization == "None" else quantization
    for offer in problem.offers:
        if wish.hardware_classes and offer.name not in wish.hardware_classes:
            continue
        if weights not in offer.hardware.quantizations:
            continue
        link = offer.hardware.interconnect
        tensors = [t for t in (1, 2, 4, 8, 16, 32, 64) if t <= link.domain_devices and problem.shape.heads % t == 0]
        tensors = [t for t in tensors if t <= offer.largest_node]
        plans = {(t, s): _fits(problem, offer, t, s, quantization) for t in tensors for s in (1, 2, 4, 8)}
        without_stages = any(plans[t, 1] and wish.gpus in (None, t) for t in tensors)
        for (tensor, stages), fits in plans.items():
            allowed = stages == 1 or (not without_stages and stages <= problem.shape.layers)
            if not fits or not allowed or tensor * stages > offer.largest_node:
                continue
            if wish.gpus not in (None, tensor * stages):
                continue
            if side := _speed(problem, role, offer, tensor, stages, quantization):
                yield side


def _longest(problem: Problem) -> int:
    most = problem.max_context_tokens or problem.shape.max_context_tokens
    return max(most, problem.load.prompt_tokens + problem.load.output_tokens)


def _fits(problem: Problem, offer: Offer, tensor: int, stages: int, quantization: str) -> bool:
    given = {"pipeline_parallel": stages, "context_tokens": _longest(problem)}
    return memory(problem.shape, offer.hardware, tensor, quantization, **given).fits  # type: ignore[arg-type]


def _speed(problem: Problem, role: str, offer: Offer, tensor: int, stages: int, quantization: str) -> Side | None:
    load, objective, shape = problem.load, problem.objective, problem.shape
    middle = load.prompt_tokens + load.output_tokens // 2
    c = prior(shape, offer.hardware, tensor, quantization, context_tokens=middle)  # type: ignore[arg-type]
    if role == "prefill":
        seconds = c.prefill_seconds(load.prompt_tokens)
        return Side(offer, tensor, stages, quantization, seconds, 0) if seconds <= 0.8 * objective.ttft_s else None
    context = load.prompt_tokens + load.output_tokens / 2
    batch = decode_sequences(c, 0.8 * objective.tpot_s, context)
    if not batch:
        return None
    plan = memory(
        shape, offer.hardware, tensor, quantization, pipeline_parallel=stages, context_tokens=_longest(problem)  # type: ignore[arg-type]
    )  # fmt: skip
    one = shape.sequence_bytes(load.prompt_tokens + load.output_tokens, 2, tensor) * -(-shape.layers // stages)
    sequences = min(batch * stages, max(1, int(plan.kv_room_bytes / (one / shape.layers))))
    step = -(-sequences // stages)
    return Side(offer, tensor, stages, quantization, c.step_seconds(step, round(step * context)), sequences)


def _pair(problem: Problem, one: Side, other: Side, best: Answer | None) -> Answer | None:
    """None: infeasible, or dearer than a pair with room, so that its own room need not be counted."""
    load, objective = problem.load, problem.objective
    size = problem.shape.sequence_bytes(load.prompt_tokens)
    link = one.offer.hardware.interconnect
    if one.offer.name == other.offer.name and link.domain_devices > max(8, one.offer.largest_node):
        rate, known = link.bytes_per_s * min(one.tensor, other.tensor), True
    else:
        rate = min(side.offer.hardware.network_bytes_per_s * side.gpus or 3.125e9 for side in (one, other))
        known = all(side.offer.hardware.network_bytes_per_s for side in (one, other))
    handoff = 0.001 + size / rate
    slack = 0.8 * objective.ttft_s - one.seconds - handoff - other.seconds
    if (known and handoff > 0.25 * objective.ttft_s) or slack < 0:
        return None
    service, miss = max(one.seconds / one.stages, handoff), 1 - objective.attainment
    answer_s = other.seconds * load.output_tokens
    prices = [side.gpus * (side.offer.hardware.price_per_hour or 0.0) for side in (one, other)]
    if load.requests_per_s:
        counts: list[float] = [
            problem.prefill.replicas or prefill_servers(load.requests_per_s * service, round(slack / service, 9), miss),
            problem.decode.replicas
            or decode_replicas(load.requests_per_s, answer_s, other.sequences, objective.attainment),
        ]
        whole = [int(count) for count in counts]
    else:
        utilization = prefill_utilization(round(slack / service, 9), miss)
        if not utilization:
            return Answer(1 << 30, float("inf"))
        counts = [service / utilization, answer_s / other.sequences / 0.92]
        whole = [problem.prefill.replicas or 1, problem.decode.replicas or 1]
    cost = sum(price * count for price, count in zip(prices, counts, strict=True))
    if best and not best.short and cost >= best.cost:
        return None
    return Answer(_short([(one, whole[0]), (other, whole[1])]), cost)


def _short(wanted: list[tuple[Side, int]]) -> int:
    """One node after the other, one replica after the other."""
    nodes = {
        side.offer.name: sorted(free for free, count in side.offer.free for _ in range(count)) for side, _ in wanted
    }
    missing = 0
    for side, count in sorted(wanted, key=lambda item: -item[0].gpus):
        room = nodes[side.offer.name]
        for _ in range(count):
            index = next((i for i, free in enumerate(room) if free >= side.gpus), None)
            if index is None:
                missing += 1
                continue
            room[index] -= side.gpus
            room.sort()
    return missing


def random_problem(seed: int) -> Problem:
    """Models of 1 to 700 B parameters, tight and loose objectives, fleets of 1 to 7 classes with other prices."""
    draw = random.Random(seed)
    shape = draw.choice([*fleets.MODELS, *(_random_model(draw) for _ in range(5))])
    classes = draw.sample(fleets.CLASSES, draw.randint(1, len(fleets.CLASSES)))
    offers = []
    for hardware in classes:
        price = round((hardware.price_per_hour or 1.0) * draw.uniform(0.5, 2.0), 2)
        network = draw.choice([0.0, 3e9, 12.5e9, 50e9])
        hardware = fleets.change(hardware, price_per_hour=price, network_bytes_per_s=network)
        size = draw.choice([1, 2, 4, 8])
        free = tuple((devices, draw.randint(1, 40)) for devices in range(size, 0, -1) if draw.random() < 0.6)
        offers.append(Offer(hardware=hardware, free=free, largest_node=size))
    prompt = draw.choice([128, 512, 2048, 8192, 20_000])
    load = Load(
        requests_per_s=draw.choice([None, 0.1, 1.0, 5.0, 20.0, 60.0]),
        prompt_tokens=prompt,
        output_tokens=draw.choice([16, 128, 512, 2048]),
    )
    objective = Objective(
        ttft_s=draw.choice([0.2, 0.5, 1.0, 2.0, 5.0, 10.0]),
        tpot_s=draw.choice([0.015, 0.03, 0.05, 0.1, 0.2]),
        attainment=draw.choice([0.9, 0.95, 0.99, 0.999]),
    )
    wish = Wish()
    if draw.random() < 0.2:
        wish = Wish(
            hardware_classes=tuple(offer.name for offer in draw.sample(offers, draw.randint(1, len(offers)))),
            gpus=draw.choice([None, None, 1, 2, 4, 8]),
            replicas=draw.choice([None, None, 1, 3]),
        )
    return Problem(
        shape=shape, offers=tuple(offers), objective=objective, load=load, decode=wish,
        max_context_tokens=draw.choice([4096, 16_384, 32_768]),
        quantization=draw.choice(["None", "None", "Auto", "FP8", "Int8Dynamic"]) if shape.stored_quantization == "None"
        else draw.choice(["None", "Auto"]),
    )  # fmt: skip


def _random_model(draw: random.Random) -> fleets.ModelShape:
    billions = draw.choice([1.5, 3, 14, 32, 120, 235])
    heads = draw.choice([16, 28, 32, 40, 64, 96])
    return fleets.dense(
        f"random-{billions}b", draw.randint(16, 96), heads * 128, heads, draw.choice([1, 4, 8, heads]), billions,
        vocabulary=32_000,
    )  # fmt: skip
