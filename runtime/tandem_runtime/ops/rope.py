"""Rotary position embedding, halves rotated as Hugging Face checkpoints store them."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_tables(
    positions: Tensor, inverse_frequencies: Tensor, dtype: torch.dtype, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """positions int64 [tokens], float32 [head_dim / 2] -> cos and sin, each [tokens, 1, head_dim / 2] of `dtype`.

    Both are multiplied by `scale` (YaRN's attention factor).
    """
    angles = positions.float()[:, None] * inverse_frequencies
    cos, sin = angles.cos(), angles.sin()
    if scale != 1.0:
        cos, sin = cos * scale, sin * scale
    return cos.to(dtype)[:, None], sin.to(dtype)[:, None]


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[tokens, heads, head_dim] -> the same, every head rotated by its token's angle."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)
