"""What a layer with a state keeps per sequence, and its parameters, by family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tandem_operator.performance.config_fields import Fields

STATE_BYTES: Final = 4
"""Recurrent states are kept in 32 bit; convolution windows in 16."""

Reader = Callable[[Fields, int], tuple[int, int, int]]
"""(fields, hidden) to what one layer has: units that tensor parallelism can divide, bytes per sequence, parameters."""


def state_reader(fields: Fields, kind: str) -> Reader:
    """`linear` is any of several recurrences; the fields tell which."""
    if kind == "convolution":
        return _convolution
    if kind == "mamba" or (
        fields.find("linear_num_key_heads") is None and fields.find("mamba_d_state", "ssm_state_size") is not None
    ):
        return _mamba
    if fields.find("linear_attn_config", "linear_num_heads") is not None:
        return _kimi_delta
    return _lightning if fields.model_type.startswith("minimax") else _delta


def _mamba(fields: Fields, hidden: int) -> tuple[int, int, int]:
    """First or second generation."""
    state = fields.count("ssm_state_size", "mamba_d_state", "state_size")
    kernel = fields.count("conv_kernel", "mamba_d_conv", "d_conv", default=4)
    heads = fields.optional_count("mamba_num_heads", "mamba_n_heads", "num_heads")
    if not heads:
        inner = hidden * fields.count("mamba_expand", "expand", default=2)
        rank = fields.find("mamba_dt_rank", "time_step_rank")
        rank = -(-hidden // 16) if rank in (None, "auto") else int(rank)
        parameters = inner * (2 * hidden + kernel + rank + 2 * state + rank + state + 2 + hidden)
        return inner, inner * state * STATE_BYTES + inner * (kernel - 1) * 2, parameters
    width = fields.find("mamba_head_dim", "mamba_d_head", "head_dim")
    inner = fields.optional_count("mamba_d_ssm")
    if not inner:
        inner = hidden * fields.count("mamba_expand", default=2) if width in (None, "auto") else heads * int(width)
    mixed = inner + 2 * fields.count("n_groups", "mamba_n_groups", default=1) * state
    parameters = hidden * (inner + mixed + heads) + mixed * kernel + inner * hidden + inner + 3 * heads
    return heads, inner * state * STATE_BYTES + mixed * (kernel - 1) * 2, parameters


def _delta(fields: Fields, hidden: int) -> tuple[int, int, int]:
    """Gated delta rule."""
    keys, values = fields.count("linear_num_key_heads"), fields.count("linear_num_value_heads")
    key_width, value_width = fields.count("linear_key_head_dim"), fields.count("linear_value_head_dim")
    kernel = fields.count("linear_conv_kernel_dim", default=4)
    inner = values * value_width
    mixed = 2 * keys * key_width + inner
    parameters = hidden * (mixed + inner + 2 * values) + mixed * kernel + inner * hidden
    return values, values * key_width * value_width * STATE_BYTES + mixed * (kernel - 1) * 2, parameters


def _kimi_delta(fields: Fields, hidden: int) -> tuple[int, int, int]:
    """Delta rule with a gate per channel."""
    nested = fields.find("linear_attn_config")
    own = Fields(nested) if isinstance(nested, Mapping) else fields
    heads = own.count("num_heads", "linear_num_heads")
    width = own.count("head_dim", "linear_head_dim") if own is not fields else own.count("linear_head_dim")
    kernel = own.count("short_conv_kernel_size", "linear_conv_kernel_dim", default=4)
    inner = heads * width
    parameters = hidden * (4 * inner + heads + 2 * width) + 2 * width * inner + 3 * inner * kernel + inner
    return heads, heads * width * width * STATE_BYTES + 3 * inner * (kernel - 1) * 2, parameters


def _lightning(fields: Fields, hidden: int) -> tuple[int, int, int]:
    """Decay without a gate per token; queries, keys, values, output gate and output of the same width."""
    heads = fields.count("num_attention_heads")
    width = fields.count("head_dim", default=hidden // heads)
    return heads, heads * width * width * STATE_BYTES, 5 * hidden * heads * width


def _convolution(fields: Fields, hidden: int) -> tuple[int, int, int]:
    """Short gated convolution."""
    kernel = fields.count("conv_L_cache", default=3)
    return hidden, hidden * (kernel - 1) * 2, 4 * hidden * hidden + hidden * kernel
