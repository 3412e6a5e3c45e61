"""Every way to run one replica of a role: class x tensor parallel x pipeline parallel x quantisation, or why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from tandem_operator.performance.hardware import Quantization
from tandem_operator.placement.problem import AUTO_QUANTIZATIONS, Offer, Problem, Role

LARGEST_GROUP: Final = 64
"""Devices of a replica that are ever tried: one node has fewer, and multi-node replicas are refused."""


class Candidate(msgspec.Struct, frozen=True, order=True):
    """One way to run a replica."""

    hardware_class: str
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    quantization: Quantization = "None"

    @property
    def gpus(self) -> int:
        """Devices of one replica."""
        return self.tensor_parallel * self.pipeline_parallel

    def __str__(self) -> str:
        pipeline = f" x PP{self.pipeline_parallel}" if self.pipeline_parallel > 1 else ""
        weights = "" if self.quantization == "None" else f" {self.quantization}"
        return f"{self.hardware_class} TP{self.tensor_parallel}{pipeline}{weights}"


class Rejection(msgspec.Struct, frozen=True):
    """What was looked at and why it was not taken, with the numbers."""

    hardware_class: str
    reason: str
    gpus: int | None = None
    """None: no way to run on this class."""
    quantization: str = "None"
    stage: int = 0
    """How far it came: 0 the class itself, 1 memory, 2 links in the replica, 3 its objective, 4 the pair."""
    excess: float = 0.0
    """Within the stage, what was needed over what there is: the least was the nearest miss."""


class Refusal(msgspec.Struct, frozen=True):
    """Nothing that the user allows can work."""

    reason: str
    prefill: tuple[Rejection, ...]
    decode: tuple[Rejection, ...]


def quantizations(problem: Problem) -> tuple[Quantization, ...]:
    """That the problem allows; one for both roles, since their KV pages must be of the same weights."""
    stored = problem.shape.stored_quantization
    if stored != "None" or problem.quantization != "Auto":
        return (problem.quantization,) if problem.quantization != "Auto" else ("None",)
    return tuple(q for q in AUTO_QUANTIZATIONS if q in problem.engine.quantizations) or ("None",)


def allowed(problem: Problem, role: Role) -> Iterator[Offer]:
    """Offers of the classes that the user named for the role, else all."""
    names = problem.wish(role).hardware_classes
    return (offer for offer in problem.offers if not names or offer.name in names)


def refusal(problem: Problem, role: Role, offer: Offer, quantization: Quantization) -> str:
    """Why the class is out of question whatever the count of devices; empty: it is not."""
    hardware, wish = offer.hardware, problem.wish(role)
    weights = problem.shape.stored_quantization if quantization == "None" else quantization
    if not offer.largest_node:
        return "no node of this class, and none may be created"
    if weights not in hardware.quantizations:
        return f"weights in {weights} do not run on it (it runs {', '.join(hardware.quantizations)})"
    if quantization not in problem.engine.quantizations:
        return f"{problem.engine.name} does not run {quantization} weights"
    asked = wish.gpus or wish.tensor_parallel or 1
    if asked > offer.largest_node:
        return (
            f"a replica of {asked} devices fits no single node (the largest has {offer.largest_node});"
            " replicas over several nodes are not supported"
        )
    return ""


def tensor_sizes(problem: Problem, role: Role, offer: Offer) -> tuple[int, ...]:
    """Tensor parallel sizes worth a look, smallest first: powers of two inside one scale-up domain that divide the
    query heads. What the user fixed is taken as it is, also across PCIe."""
    wish, engine = problem.wish(role), problem.engine
    if wish.tensor_parallel is not None:
        sizes: tuple[int, ...] = (wish.tensor_parallel,)
    else:
        domain = min(offer.hardware.interconnect.domain_devices, offer.largest_node, LARGEST_GROUP)
        sizes = tuple(1 << power for power in range(domain.bit_length()) if 1 << power <= domain)
        if wish.gpus is not None:
            sizes = tuple(sorted({size for size in (*sizes, wish.gpus) if size <= domain and wish.gpus % size == 0}))
    return tuple(size for size in sizes if size <= engine.tensor_parallel and problem.shape.heads % size == 0)


def pipeline_sizes(problem: Problem, role: Role, offer: Offer, tensor_parallel: int) -> tuple[int, ...]:
    """Pipeline sizes above 1, for a class that holds the model in no tensor-parallel group alone, or as fixed."""
    wish, most = problem.wish(role), min(problem.engine.pipeline_parallel, problem.shape.layers)
    if wish.gpus is not None:
        stages, rest = divmod(wish.gpus, tensor_parallel)
        return (stages,) if not rest and 1 < stages <= most else ()
    room = min(most, offer.largest_node // tensor_parallel)
    return tuple(1 << power for power in range(1, room.bit_length()) if 1 << power <= room)
