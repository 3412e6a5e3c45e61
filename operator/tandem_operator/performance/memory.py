"""Whether a replica fits its devices: every term of one device's memory, and by how much it fits or not."""

from __future__ import annotations

from typing import Final

import msgspec

from tandem_operator.performance.hardware import GIB, Hardware, Quantization
from tandem_operator.performance.quantization import weight_bytes
from tandem_operator.performance.shape import ModelShape

MIB: Final = 2**20
ACTIVATION_WIDTHS: Final = ((1, 11.0), (2, 6.5), (4, 5.0))
"""Live 16-bit activations per batched token, in hidden sizes, by tensor-parallel degree from which it holds."""
MOE_ACTIVATIONS: Final = 2.0
"""Routed copies of the tokens."""
COLLECTIVE_MIB: Final = ((1, 0), (2, 342), (4, 392))
"""Buffers of the collective library, by tensor-parallel degree from which it holds."""
BATCHED_TOKENS: Final = 8192
"""Prompt tokens of one engine step: what engines take on large GPUs."""


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of one device of a replica, in bytes."""

    device_bytes: int
    utilization: float
    weights_bytes: float
    activations_bytes: float
    collective_bytes: float
    overhead_bytes: float
    required_kv_bytes: float
    """KV and states of `sequences` sequences of `context_tokens`, the least that the replica must hold."""
    sequences: int
    context_tokens: int
    kv_bytes_per_token: float
    """Of a sequence of `context_tokens`, on average: full windows make it less than the slope, states more."""

    @property
    def budget_bytes(self) -> float:
        """What an engine may fill."""
        return self.device_bytes * self.utilization

    @property
    def fixed_bytes(self) -> float:
        """All but KV."""
        return self.weights_bytes + self.activations_bytes + self.collective_bytes + self.overhead_bytes

    @property
    def needed_bytes(self) -> float:
        """The sum that must stay within the budget."""
        return self.fixed_bytes + self.required_kv_bytes

    @property
    def spare_bytes(self) -> float:
        """What is left over; negative: what is missing."""
        return self.budget_bytes - self.needed_bytes

    @property
    def fits(self) -> bool:
        """Whether the replica can start and hold what it must."""
        return self.spare_bytes >= 0

    @property
    def kv_room_bytes(self) -> float:
        """Left for KV beside everything fixed."""
        return max(0.0, self.budget_bytes - self.fixed_bytes)

    @property
    def kv_tokens(self) -> int:
        """Tokens of context that the replica can hold, in sequences of about `context_tokens`."""
        return int(self.kv_room_bytes / self.kv_bytes_per_token) if self.kv_bytes_per_token else 0

    def explain(self) -> str:
        """The arithmetic in one line, GiB of one device."""
        terms = (
            ("weights", self.weights_bytes),
            ("activations", self.activations_bytes),
            ("collectives", self.collective_bytes),
            ("overhead", self.overhead_bytes),
            (f"KV of {self.sequences} x {self.context_tokens} tokens", self.required_kv_bytes),
        )
        listed = " + ".join(f"{name} {value / GIB:.1f}" for name, value in terms if value)
        limit = f"{self.utilization:g} x {self.device_bytes / GIB:.1f} = {self.budget_bytes / GIB:.1f} GiB"
        verdict = f"{self.spare_bytes / GIB:.1f} GiB spare" if self.fits else f"{-self.spare_bytes / GIB:.1f} GiB short"
        return f"{listed} = {self.needed_bytes / GIB:.1f} of {limit}: {verdict}"


def memory(
    shape: ModelShape,
    hardware: Hardware,
    tensor_parallel: int = 1,
    quantization: Quantization = "None",
    *,
    pipeline_parallel: int = 1,
    sequences: int = 1,
    context_tokens: int | None = None,
    batched_tokens: int = BATCHED_TOKENS,
    kv_dtype_bytes: float = 2,
) -> MemoryPlan:
    """Terms of the fullest device. `context_tokens`: of one sequence, default the model's own maximum."""
    if tensor_parallel < 1 or pipeline_parallel < 1:
        raise ValueError(
            f"tensor_parallel {tensor_parallel} and pipeline_parallel {pipeline_parallel} must be 1 or more"
        )
    constants = hardware.constants
    context = shape.max_context_tokens if context_tokens is None else context_tokens
    stage = -(-shape.layers // pipeline_parallel) / shape.layers
    sequence = shape.sequence_bytes(context, kv_dtype_bytes, tensor_parallel) * stage
    width = _by_degree(ACTIVATION_WIDTHS, tensor_parallel) * (MOE_ACTIVATIONS if shape.is_moe else 1.0)
    return MemoryPlan(
        device_bytes=hardware.memory_bytes,
        utilization=constants.utilization,
        weights_bytes=weight_bytes(shape, quantization) * constants.weight_growth / tensor_parallel * stage,
        activations_bytes=2 * batched_tokens * shape.hidden * width,
        collective_bytes=_by_degree(COLLECTIVE_MIB, tensor_parallel * pipeline_parallel) * MIB,
        overhead_bytes=constants.overhead_bytes,
        required_kv_bytes=sequences * sequence,
        sequences=sequences,
        context_tokens=context,
        kv_bytes_per_token=sequence / context if context else 0.0,
    )


def _by_degree(table: tuple[tuple[int, float], ...], degree: int) -> float:
    return next(value for least, value in reversed(table) if degree >= least)
