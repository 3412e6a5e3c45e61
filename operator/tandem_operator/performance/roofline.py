"""Seconds of prefill and decode from facts of model and hardware: the prior that measurements later correct."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from tandem_runtime.contracts.coefficients import SCHEMA, Coefficients, Decode, Link, Prefill

from tandem_operator.performance.hardware import Constants, Hardware, Quantization
from tandem_operator.performance.memory import BATCHED_TOKENS, memory
from tandem_operator.performance.quantization import (
    active_weight_bytes,
    arithmetic,
    bytes_per_linear_parameter,
    weight_bytes,
)
from tandem_operator.performance.shape import ModelShape

HOST_BUS_K: Final = 9.0
"""All-reduce through PCIe against the textbook's traffic: what the silicon tables say of L40S at TP 4 (8B and 70B)."""
HOST_BUS_BYTES_PER_S: Final = 32e9
"""PCIe 4 x16, one direction: what a group larger than its scale-up domain is left with."""
LAYER_LAUNCH_S: Final = 50e-6
"""Constant part of a prefill step per layer: kernels of short prompts wait for their launch."""
SEQUENCE_S: Final = 30e-6
"""Of a decode step per sequence, whatever the device: sampling and scheduling. 23 to 43 us in every fit to vLLM."""
TYPICAL_CONTEXT_TOKENS: Final = 4096
TYPICAL_SEQUENCES: Final = 64
"""Decode batch at which the share of experts read is counted."""
MAX_SEQUENCES: Final = 256
UNKNOWN_NETWORK_BYTES_PER_S: Final = 3.125e9
"""25 Gb/s: the least that GPU nodes of clouds have."""
LINK_SETUP_S: Final = 0.001
LOAD_BYTES_PER_S: Final = 2e9
"""Of one device's share, from local disk."""
LOAD_OVERHEAD_S: Final = 30.0
"""Process start, graph capture, warm-up."""

Bound = Literal["compute", "bandwidth", "memory", "link"]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a replica by cause. Prefill: per prompt token, per token pair attended. Decode: per step."""

    prefill_constant_s: float
    prefill_compute_s: float
    """Per prompt token."""
    prefill_attention_s: float
    """Per prompt token and token that it attends to."""
    prefill_link_s: float
    """Per prompt token."""
    decode_weights_s: float
    decode_link_s: float
    decode_sequence_s: float
    """Per sequence: sampling; states and full windows that are read."""
    decode_kv_s: float
    """Per token of KV."""
    arithmetic: str
    """What the matrix units do: 16 bit, fp8, int8, fp4."""

    def prefill_bound(self, new_tokens: int, context_tokens: int = 0) -> Bound:
        """What takes the most of a prefill."""
        compute = self.prefill_compute_s * new_tokens
        compute += self.prefill_attention_s * new_tokens * (context_tokens + new_tokens / 2)
        causes: dict[Bound, float] = {
            "compute": compute,
            "link": self.prefill_link_s * new_tokens,
            "bandwidth": self.prefill_constant_s,
        }
        return max(causes, key=lambda cause: causes[cause])

    def decode_bound(self, sequences: int, kv_tokens: int, kv_tokens_room: int | None = None) -> Bound:
        """What takes the most of a step; memory when one more sequence like these would not fit `kv_tokens_room`."""
        if kv_tokens_room is not None and sequences and kv_tokens + kv_tokens / sequences > kv_tokens_room:
            return "memory"
        read = self.decode_weights_s + self.decode_sequence_s * sequences + self.decode_kv_s * kv_tokens
        return "link" if self.decode_link_s > read else "bandwidth"


def crosses_host_bus(hardware: Hardware, tensor_parallel: int) -> bool:
    """Whether all-reduces of such a group go through PCIe."""
    link = hardware.interconnect
    return tensor_parallel > 1 and (link.is_host_bus or tensor_parallel > link.domain_devices)


def prefill_refusal(hardware: Hardware, tensor_parallel: int) -> str | None:
    """Why such a group must not compute prompts, or None: all-reduces through PCIe take 10x the arithmetic."""
    if not crosses_host_bus(hardware, tensor_parallel):
        return None
    link = hardware.interconnect
    bus = link.kind if link.is_host_bus else "PCIe"
    return (
        f"tensor-parallel prefill on {tensor_parallel} x {hardware.name} would cross {bus} "
        f"(scale-up domain: {link.domain_devices}); use one device per replica or a class with a faster link"
    )


def terms(
    shape: ModelShape,
    hardware: Hardware,
    tensor_parallel: int = 1,
    quantization: Quantization = "None",
    *,
    kv_dtype_bytes: float = 2,
    context_tokens: int = TYPICAL_CONTEXT_TOKENS,
    sequences: int = TYPICAL_SEQUENCES,
) -> Terms:
    """Raises ValueError naming the fact of the class that is missing."""
    if not hardware.bandwidth_bytes_per_s or not hardware.flops.half:
        missing = "memoryBandwidth" if not hardware.bandwidth_bytes_per_s else "flops.bf16"
        raise ValueError(f"hardware class {hardware.name} has no {missing}: its speed is not known")
    constants = hardware.constants
    kind = arithmetic(shape, hardware, quantization)
    matrix_flops = tensor_parallel * kind.flops * kind.mfu
    attention_flops = tensor_parallel * hardware.flops.half * constants.mfu
    bandwidth = hardware.bandwidth_bytes_per_s * constants.mbu
    pair_flops = 2.0 * shape.heads  # per token pair and dimension, of keys and of values
    compute = 2.0 * shape.active_parameters / matrix_flops
    attention = sequence_bytes = token_bytes = 0.0
    for group in shape.attention:
        per_pair = group.layers * pair_flops * (group.key_dim + group.value_dim) / attention_flops
        held = group.token_bytes(kv_dtype_bytes, tensor_parallel)
        if group.window_tokens is not None:
            compute += per_pair * group.window_tokens
        else:
            attention += per_pair
        if group.window_tokens is not None and group.window_tokens <= context_tokens:
            sequence_bytes += held * group.window_tokens
        else:
            token_bytes += held
    sequence_bytes += 2 * shape.state_bytes_per_sequence(tensor_parallel)  # read and written
    experts_s = shape.expert_parameters * bytes_per_linear_parameter(shape, quantization) / tensor_parallel / bandwidth
    return Terms(
        prefill_constant_s=shape.layers * LAYER_LAUNCH_S + experts_s,
        prefill_compute_s=compute,
        prefill_attention_s=attention,
        prefill_link_s=_all_reduce_seconds(shape, hardware, tensor_parallel),
        decode_weights_s=active_weight_bytes(shape, quantization, sequences) / tensor_parallel / bandwidth,
        decode_link_s=2 * shape.layers * constants.all_reduce_s if tensor_parallel > 1 else 0.0,
        decode_sequence_s=SEQUENCE_S + sequence_bytes / bandwidth,
        decode_kv_s=token_bytes / bandwidth,
        arithmetic=kind.kind,
    )


def _all_reduce_seconds(shape: ModelShape, hardware: Hardware, tensor_parallel: int) -> float:
    """Of one prompt token: two all-reduces of 16-bit activations per layer."""
    if tensor_parallel == 1:
        return 0.0
    ring = 2 * (tensor_parallel - 1) / tensor_parallel * shape.hidden * 2
    link = hardware.interconnect
    if not crosses_host_bus(hardware, tensor_parallel):
        return hardware.constants.k * 2 * shape.layers * ring / link.bytes_per_s
    bytes_per_s = link.bytes_per_s if link.is_host_bus else HOST_BUS_BYTES_PER_S
    return max(HOST_BUS_K, hardware.constants.k) * 2 * shape.layers * ring / bytes_per_s


def prior(
    shape: ModelShape,
    hardware: Hardware,
    tensor_parallel: int = 1,
    quantization: Quantization = "None",
    *,
    pipeline_parallel: int = 1,
    kv_dtype_bytes: float = 2,
    context_tokens: int = TYPICAL_CONTEXT_TOKENS,
    sequences: int = TYPICAL_SEQUENCES,
    batched_tokens: int = BATCHED_TOKENS,
    max_sequences: int = MAX_SEQUENCES,
) -> Coefficients:
    """Coefficients of one replica. `context_tokens`, `sequences`: where the straight lines are laid.

    Stages of a pipeline work on a token one after the other: they add room and rate, and take no second off a step.
    """
    parts = terms(
        shape, hardware, tensor_parallel, quantization,
        kv_dtype_bytes=kv_dtype_bytes, context_tokens=context_tokens, sequences=sequences,
    )  # fmt: skip
    plan = memory(
        shape, hardware, tensor_parallel, quantization,
        pipeline_parallel=pipeline_parallel, context_tokens=context_tokens, batched_tokens=batched_tokens,
        kv_dtype_bytes=kv_dtype_bytes,
    )  # fmt: skip
    devices = tensor_parallel * pipeline_parallel
    network = hardware.network_bytes_per_s or UNKNOWN_NETWORK_BYTES_PER_S
    return Coefficients(
        schema=SCHEMA,
        prefill=Prefill(
            theta0_s=parts.prefill_constant_s,
            theta1_s=parts.prefill_compute_s + parts.prefill_link_s,
            theta2_s=parts.prefill_attention_s,
        ),
        decode=Decode(
            phi0_s=parts.decode_weights_s + parts.decode_link_s,
            phi1_s=parts.decode_sequence_s,
            phi2_s=parts.decode_kv_s,
        ),
        link=Link(setup_s=LINK_SETUP_S, bytes_per_s=network * devices),
        kv_bytes_per_token=round(shape.kv_bytes_per_token(kv_dtype_bytes)),
        kv_tokens=plan.kv_tokens,
        max_sequences=max_sequences,
        load_s=LOAD_OVERHEAD_S + weight_bytes(shape, quantization) / devices / LOAD_BYTES_PER_S,
    )


def limit(
    shape: ModelShape, hardware: Hardware, tensor_parallel: int = 1, quantization: Quantization = "None"
) -> Coefficients:
    """Physics alone: every FLOP and byte per second used, links for free. No measurement can be faster."""
    ideal = Constants(mfu=1.0, mbu=1.0, k=0.0, all_reduce_s=0.0)
    free = msgspec.structs.replace(hardware, constants=ideal)
    parts = terms(shape, free, tensor_parallel, quantization, sequences=1)
    whole = prior(shape, hardware, tensor_parallel, quantization)
    return whole.with_terms(
        Prefill(0.0, parts.prefill_compute_s, parts.prefill_attention_s),
        Decode(parts.decode_weights_s, parts.decode_sequence_s - SEQUENCE_S, parts.decode_kv_s),
    )


def prefill_seconds(coefficients: Coefficients, new_tokens: int, context_tokens: int = 0) -> float:
    """Seconds to compute `new_tokens` prompt tokens after `context_tokens` that are there already."""
    return coefficients.prefill_seconds(new_tokens, context_tokens)


def step_seconds(coefficients: Coefficients, sequences: int, kv_tokens: int) -> float:
    """Seconds of one decode step."""
    return coefficients.step_seconds(sequences, kv_tokens)
