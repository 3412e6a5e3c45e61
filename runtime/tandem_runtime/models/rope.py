"""Inverse frequencies of rotary embedding with the scalings that checkpoints of the Llama family use."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tandem_runtime.models.config import Rope


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """float32 [head_dim / 2]: radians per token of each pair of dimensions."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    plain = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _scale_llama3(plain, rope)
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
