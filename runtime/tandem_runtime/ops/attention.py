"""Attention over paged KV, reference in plain torch.

The KV of one layer is a pair of KvPages, views of the pool.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def prefill_attention(query: Tensor, keys: Tensor, values: Tensor, position: int, window: int = 0) -> Tensor:
    """Causal attention of a chunk that starts at `position`, to the last `window` tokens, its own included; 0: to all.

    query [tokens, heads, head_dim]; keys, values [kv_heads, position + tokens, head_dim] -> [tokens, heads, head_dim].
    """
    tokens = query.shape[0]
    context = keys.shape[1]
    mask = None
    slides = 0 < window < context
    if position or slides:
        rows = torch.arange(position, position + tokens, device=query.device)[:, None]
        columns = torch.arange(context, device=query.device)[None]
        mask = columns <= rows
        if slides:
            mask &= columns > rows - window
    attended = functional.scaled_dot_product_attention(
        query.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, is_causal=mask is None, enable_gqa=True
    )
    return attended[0].transpose(0, 1)


def decode_attention(query: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, window: int = 0) -> Tensor:
    """One new token per sequence; query heads of one KV head are folded into rows, so K and V are read once.

    query [batch, heads, head_dim]; keys, values [batch, kv_heads, longest, head_dim], finite beyond each sequence's
    length; lengths int64 [batch] -> [batch, heads, head_dim]. Only the last `window` tokens are seen; 0: all.
    """
    batch, heads, head_dim = query.shape
    kv_heads, longest = keys.shape[1:3]
    folded = query.view(batch, kv_heads, heads // kv_heads, head_dim)
    columns = torch.arange(longest, device=query.device)
    mask = columns < lengths[:, None]
    if 0 < window < longest:
        mask &= columns >= lengths[:, None] - window
    attended = functional.scaled_dot_product_attention(folded, keys, values, attn_mask=mask[:, None, None])
    return attended.reshape(batch, heads, head_dim)


def block_attention(query: Tensor, keys: Tensor, values: Tensor, position: int, window: int = 0) -> Tensor:
    """Deterministic attention of one whole block of rows, `position` being the first row's; `window` as above.

    query [rows, heads, head_dim]; keys, values [kv_heads, position + rows, head_dim], finite where not stored.
    Shapes depend on `position` alone and masked scores add exact zeros, so a row's bits do not depend on other rows.
    """
    rows, heads, head_dim = query.shape
    kv_heads, context = keys.shape[:2]
    group = heads // kv_heads
    folded = query.view(rows, kv_heads, group, head_dim).permute(1, 2, 0, 3).reshape(kv_heads, group * rows, head_dim)
    scores = torch.bmm(folded, keys.transpose(1, 2)).view(kv_heads, group, rows, context) * head_dim**-0.5
    last = torch.arange(position, position + rows, device=query.device)[:, None]
    columns = torch.arange(context, device=query.device)[None]
    hidden = columns > last
    if 0 < window < context:
        hidden |= columns <= last - window
    weights = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)
    attended = torch.bmm(weights.view(kv_heads, group * rows, context), values)
    return attended.view(kv_heads, group, rows, head_dim).permute(2, 0, 1, 3).reshape(rows, heads, head_dim)
