"""Inverse frequencies of rotary embedding with the scalings that checkpoints of the Llama family use."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tandem_runtime.models.rope_config import Rope


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """float32 [head_dim / 2]: radians per token of each pair of dimensions."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    plain = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _scale_llama3(plain, rope)
    if rope.kind == "yarn":
        return _scale_yarn(rope, head_dim, rope.theta**exponents)
    return plain


def _scale_llama3(plain: Tensor, rope: Rope) -> Tensor:
    """Llama 3.1: slow dimensions are slowed by `factor`, fast ones kept, those between blended."""
    wavelength = 2 * math.pi / plain
    longest = rope.original_context_tokens / rope.low_frequency_factor
    shortest = rope.original_context_tokens / rope.high_frequency_factor
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    blend = (rope.original_context_tokens / wavelength - low) / (high - low)
    blended = (1 - blend) * plain / rope.factor + blend * plain
    scaled = torch.where(wavelength > longest, plain / rope.factor, plain)
    return torch.where((wavelength <= longest) & (wavelength >= shortest), blended, scaled)


def _scale_yarn(rope: Rope, head_dim: int, periods: Tensor) -> Tensor:
    """YaRN (arXiv:2309.00071, section 3.2): between the dimensions that turn `beta_fast` and `beta_slow` times over
    the original context, a ramp from the plain frequencies to those slowed by `factor`."""

    def dimension(turns: float) -> float:
        angle = rope.original_context_tokens / (turns * 2 * math.pi)
        return head_dim * math.log(angle) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a step instead of a division by zero
    ramp = torch.clamp((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low), 0, 1)
    kept = 1 - ramp
    return (1.0 / (rope.factor * periods)) * (1 - kept) + (1.0 / periods) * kept
