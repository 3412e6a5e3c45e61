"""K or V of one layer in the pages of the pool, as they are or as int8 with a float32 scale per token and head.

In int8 a page keeps, for each layer, K or V and head, the codes of all its tokens and then their scales: every range of
layers of a page is one block of bytes, so the hand-off sends scales with their codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

TOP: Final = 127
"""Largest code; -128 is not used, so that signs are alike."""
SMALLEST: Final = 1e-30
"""What the largest value of a token is taken for at least: its inverse stays finite."""
SCALE_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class KvPages:
    """`codes` [pages, kv_heads, page_tokens, head_dim]; `scales` [pages, kv_heads, page_tokens] where they are int8."""

    codes: Tensor
    dtype: torch.dtype
    """What they are read as."""
    scales: Tensor | None = None

    def write(self, rows: Tensor, page: Tensor, slot: Tensor) -> None:
        """Stores [tokens, kv_heads, head_dim] at (page, slot), each int64 [tokens]."""
        if self.scales is None:
            self.codes[page, :, slot] = rows
            return
        codes, scales = quantise(rows)
        self.codes[page, :, slot] = codes
        self.scales[page, :, slot] = scales

    def read(self, block_table: Tensor) -> Tensor:
        """int64 [batch, n] -> [batch, kv_heads, n * page_tokens, head_dim]."""
        batch, n = block_table.shape
        _, heads, page_tokens, head_dim = self.codes.shape
        places = block_table.reshape(-1)
        picked = self.codes.index_select(0, places)
        if self.scales is not None:
            picked = dequantise(picked, self.scales.index_select(0, places)).to(self.dtype)
        picked = picked.view(batch, n, heads, page_tokens, head_dim)
        return picked.transpose(1, 2).reshape(batch, heads, n * page_tokens, head_dim)


def plane_bytes(page_tokens: int, head_dim: int, dtype: torch.dtype) -> int:
    """Of one head's keys or values in a page, scales included."""
    return page_tokens * (head_dim * dtype.itemsize + (SCALE_BYTES if dtype == torch.int8 else 0))


def split_planes(planes: Tensor, page_tokens: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """int8 [..., plane_bytes] -> views: codes [..., page_tokens, head_dim], float32 scales [..., page_tokens]."""
    codes, scales = planes[..., : page_tokens * head_dim], planes[..., page_tokens * head_dim :]
    return codes.view(*planes.shape[:-1], page_tokens, head_dim), scales.view(torch.float32)


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """[..., head_dim] -> int8 codes and float32 scales [...]; each value is off by at most half its row's scale."""
    exact = rows.float()
    largest = exact.abs().amax(dim=-1).clamp_min(SMALLEST)
    codes = (exact * (TOP / largest)[..., None]).round()
    return codes.to(torch.int8), largest / TOP


def dequantise(codes: Tensor, scales: Tensor) -> Tensor:
    """The inverse in float32."""
    return codes.float() * scales[..., None]
