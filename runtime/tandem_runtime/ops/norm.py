"""Normalisation and activation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """[..., hidden] -> the same shape and dtype; the mean square is taken in float32."""
    wide = x.float()
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return scaled.to(x.dtype) * weight


def swiglu(gate_up: Tensor) -> Tensor:
    """[..., 2 * n], gate first -> [..., n]: silu(gate) * up."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up
