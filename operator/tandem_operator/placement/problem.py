"""The question that `choose` answers: model, objectives, load, what the user fixed, what there is. Plain values."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from tandem_operator.performance.hardware import Hardware, Quantization
from tandem_operator.performance.shape import ModelShape

Role = Literal["prefill", "decode"]
ROLES: Final[tuple[Role, Role]] = ("prefill", "decode")

AUTO_QUANTIZATIONS: Final[tuple[Quantization, ...]] = ("None", "FP8", "Int8Dynamic", "Int8")
"""What Auto may choose: 4 bit weights cost answers their quality, so they are only taken when named."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the pools shall serve. Without a rate, classes are compared by cost per request."""

    requests_per_s: float | None = None
    prompt_tokens: int = 2048
    """Mean; an ordinary chat or retrieval prompt."""
    output_tokens: int = 256


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """TTFT for a prompt of the load's length, TPOT, and the share of requests that must meet both."""

    ttft_s: float = 2.0
    tpot_s: float = 0.05
    attainment: float = 0.99


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the user fixed for one role. It wins over everything that `choose` would prefer."""

    hardware_classes: tuple[str, ...] = ()
    """In order of preference only among equals; empty: all that there are."""
    gpus: int | None = None
    """Devices of one replica."""
    tensor_parallel: int | None = None
    replicas: int | None = None


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """What the program in the pods can do. Placement proposes nothing that it cannot."""

    name: str = "any engine"
    tensor_parallel: int = 1024
    pipeline_parallel: int = 8
    quantizations: tuple[Quantization, ...] = ("None", "FP8", "Int8Dynamic", "Int8", "Int4", "MXFP4", "NVFP4")
    same_tensor_parallel: bool = False
    """Whether the KV hand-off asks for the same tensor parallelism on both sides."""


TORCH_ENGINE: Final = Engine(
    name="executor Torch of this version", tensor_parallel=1, pipeline_parallel=1, quantizations=("None",)
)
"""It runs a replica on one device, in the checkpoint's own type."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One hardware class and what of it can be had."""

    hardware: Hardware
    resource: str = "nvidia.com/gpu"
    free: tuple[tuple[int, int], ...] = ()
    """(free devices on a node, count of such nodes), with those that a node autoscaler may add and those that this
    deployment holds itself: a change gives them back."""
    largest_node: int = 0
    """Devices of the largest node that exists or may be created; 0: there is none."""
    in_use: bool = False
    """This deployment has pods there now."""

    @property
    def name(self) -> str:
        return self.hardware.name


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment in one cluster."""

    shape: ModelShape
    offers: tuple[Offer, ...]
    objective: Objective = Objective()
    load: Load = Load()
    max_context_tokens: int | None = None
    """Longest prompt plus answer that must fit; None: the model's own limit."""
    quantization: Quantization | Literal["Auto"] = "None"
    prefill: Wish = Wish()
    decode: Wish = Wish()
    engine: Engine = Engine()

    def wish(self, role: Role) -> Wish:
        return self.prefill if role == "prefill" else self.decode

    @property
    def context_tokens(self) -> int:
        """That a replica must be able to hold."""
        return self.max_context_tokens or self.shape.max_context_tokens
