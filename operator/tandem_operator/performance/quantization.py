"""What a quantisation does to a model: bytes that are stored and read, and the arithmetic that the device does."""

from __future__ import annotations

from typing import Final

import msgspec

from tandem_operator.performance.hardware import Hardware, Quantization
from tandem_operator.performance.shape import ModelShape

QUANTISED_MFU_LOSS: Final = 0.1
"""Scales and smaller tiles: 8- and 4-bit kernels reach less of their higher peak. An estimate, never measured by us."""


class Scheme(msgspec.Struct, frozen=True):
    """Bytes per quantised parameter, scales included, and whether activations are quantised with them."""

    bytes_per_parameter: float
    arithmetic: str = ""
    """Field of Flops that the matrix units use when the device has it; empty: weights only, 16-bit arithmetic."""


SCHEMES: Final[dict[Quantization, Scheme]] = {
    "Int8Dynamic": Scheme(1.0, "int8"),
    "Int8": Scheme(1.0),
    "Int4": Scheme(0.5 + 2 / 128),  # one 16-bit scale per group of 128
    "FP8": Scheme(1.0, "fp8"),
    "MXFP4": Scheme(0.5 + 1 / 32),  # one 8-bit exponent per block of 32
    "NVFP4": Scheme(0.5 + 1 / 16, "fp4"),  # one FP8 scale per block of 16
}


class Arithmetic(msgspec.Struct, frozen=True):
    """What the device does with the matrices of the blocks."""

    kind: str
    flops: float
    mfu: float


def effective(shape: ModelShape, quantization: Quantization) -> Quantization:
    """What really runs: None means whatever the checkpoint comes in."""
    return shape.stored_quantization if quantization == "None" else quantization


def weight_bytes(shape: ModelShape, quantization: Quantization = "None") -> float:
    """Bytes of all weights: as stored, or quantised in the blocks and 16 bit elsewhere."""
    if effective(shape, quantization) == shape.stored_quantization:
        return shape.weight_bytes
    rest = (shape.parameters - shape.linear_parameters) * 2.0
    return shape.linear_parameters * SCHEMES[quantization].bytes_per_parameter + rest


def bytes_per_linear_parameter(shape: ModelShape, quantization: Quantization = "None") -> float:
    """Bytes per parameter of a block's matrices; of a quantised checkpoint what its size says."""
    kind = effective(shape, quantization)
    if kind == "None":
        return shape.stored_bytes_per_parameter
    if kind != shape.stored_quantization:
        return SCHEMES[kind].bytes_per_parameter
    rest = (shape.parameters - shape.linear_parameters) * shape.stored_bytes_per_parameter
    return max(0.0, shape.weight_bytes - rest) / max(1, shape.linear_parameters)


def active_weight_bytes(shape: ModelShape, quantization: Quantization = "None", sequences: int = 1) -> float:
    """Bytes of weights that one decode step of `sequences` sequences reads.

    Of the experts those that at least one token is routed to: 1 - (1 - k/E)^n of them when the router spreads evenly.
    """
    per_linear = bytes_per_linear_parameter(shape, quantization)
    rest = (shape.active_parameters - shape.active_linear_parameters) * shape.stored_bytes_per_parameter
    if not shape.is_moe:
        return shape.active_linear_parameters * per_linear + rest
    share = shape.experts_active / shape.experts
    always = shape.active_linear_parameters - shape.expert_parameters * share
    touched = shape.expert_parameters * (1 - (1 - share) ** max(1, sequences))
    return (always + touched) * per_linear + rest


def arithmetic(shape: ModelShape, hardware: Hardware, quantization: Quantization = "None") -> Arithmetic:
    """Dense FLOP/s of one device and the share that is reached; 16 bit where the device lacks the narrow unit."""
    scheme = SCHEMES.get(effective(shape, quantization))
    constants = hardware.constants
    if scheme is None:
        return Arithmetic("16 bit", hardware.flops.half, constants.mfu)
    narrow = float(getattr(hardware.flops, scheme.arithmetic)) if scheme.arithmetic else 0.0
    mfu = max(0.05, constants.mfu - QUANTISED_MFU_LOSS)
    if narrow:
        return Arithmetic(scheme.arithmetic, narrow, mfu)
    return Arithmetic("16 bit", hardware.flops.half, mfu)
