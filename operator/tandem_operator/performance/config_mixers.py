"""What mixes the tokens of each layer: attention of which kind, or a state; its parameters and what it keeps."""

from __future__ import annotations

from typing import Final, Literal

from tandem_operator.performance.config_experts import STATES_ONLY
from tandem_operator.performance.config_fields import ConfigError, Fields
from tandem_operator.performance.shape import AttentionLayers, StateLayers

Kind = Literal["full", "window", "chunk", "mamba", "delta", "convolution", "none"]

KINDS: Final[dict[str, Kind]] = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "window",
    "chunked_attention": "chunk",
    "linear_attention": "delta",
    "mamba": "mamba",
    "mamba2": "mamba",
    "conv": "convolution",
}
PATTERN: Final[dict[str, Kind]] = {"M": "mamba", "*": "full", "-": "none", "E": "none"}
"""Letters of hybrid_override_pattern: one block each, a mixer or an MLP."""
STATE_BYTES: Final = 4
"""Recurrent states are kept in 32 bit; convolution windows in 16."""


def layer_kinds(fields: Fields, layers: int) -> list[Kind]:
    """Kind of each layer's mixer, in order."""
    pattern = fields.per_layer("hybrid_override_pattern", layers)
    if pattern is not None:
        return [_known(PATTERN, "hybrid_override_pattern", letter) for letter in pattern]
    for name in ("layer_types", "layers_block_type"):
        types = fields.per_layer(name, layers)
        if types is not None:
            return [_known(KINDS, name, kind) for kind in types]
    return _hybrid(fields, layers) or _windows(fields, layers)


def _known(table: dict[str, Kind], name: str, value: object) -> Kind:
    kind = table.get(str(value))
    if kind is None:
        raise ConfigError(f"config.json: {name} has {value!r}; known are {', '.join(table)}")
    return kind


def _hybrid(fields: Fields, layers: int) -> list[Kind] | None:
    """Rules of families that mix states and attention without listing it."""
    if period := fields.optional_count("attn_layer_period"):
        offset = fields.optional_count("attn_layer_offset")
        return ["full" if i % period == offset else "mamba" for i in range(layers)]
    if fields.find("attn_layer_indices") is not None:
        chosen = set(fields.find("attn_layer_indices"))
        return ["full" if i in chosen else "mamba" for i in range(layers)]
    if interval := fields.optional_count("full_attention_interval"):
        return ["full" if (i + 1) % interval == 0 else "delta" for i in range(layers)]
    if fields.model_type in STATES_ONLY:
        return ["mamba"] * layers
    return None


def _windows(fields: Fields, layers: int) -> list[Kind]:
    """Rules of families that slide without listing which layers do."""
    if fields.find("attention_chunk_size") is not None:
        return ["full" if (i + 1) % 4 == 0 else "chunk" for i in range(layers)]
    if fields.find("sliding_window") is None or not fields.flag("use_sliding_window", True):
        return ["full"] * layers
    if fields.model_type == "gemma2":
        return ["window" if i % 2 == 0 else "full" for i in range(layers)]
    if period := fields.optional_count("sliding_window_pattern", "_sliding_window_pattern"):
        return ["full" if (i + 1) % period == 0 else "window" for i in range(layers)]
    if fields.model_type in ("gemma3_text", "gemma3"):
        return ["full" if (i + 1) % 6 == 0 else "window" for i in range(layers)]
    first = fields.optional_count("max_window_layers") if fields.find("use_sliding_window") is not None else 0
    return ["window" if i >= first else "full" for i in range(layers)]


def head_dim(fields: Fields) -> int:
    """Of queries and keys."""
    if fields.optional_count("kv_lora_rank"):
        return fields.count("qk_nope_head_dim", least=0) + fields.count("qk_rope_head_dim", least=0)
    heads = fields.count("num_attention_heads", "n_head", "n_heads")
    hidden = fields.count("hidden_size", "n_embd", "d_model")
    return fields.count("head_dim", "attention_head_dim", default=hidden // heads)


def kv_heads(fields: Fields) -> int:
    """1 for multi-query; as many as query heads where nothing is said."""
    heads = fields.count("num_attention_heads", "n_head", "n_heads")
    if fields.flag("multi_query") and not fields.flag("new_decoder_architecture"):
        return 1
    return fields.count("num_key_value_heads", "num_kv_heads", "n_head_kv", default=heads)


def attention_layers(fields: Fields, kinds: list[Kind]) -> tuple[AttentionLayers, ...]:
    """Groups by what they keep: all tokens, a window, a chunk."""
    groups: list[AttentionLayers] = []
    windows = {"full": None, "window": "sliding_window", "chunk": "attention_chunk_size"}
    for kind, name in windows.items():
        count = sum(k == kind for k in kinds)
        if not count:
            continue
        window = None if name is None else fields.count(name)
        latent = fields.optional_count("kv_lora_rank")
        rope = fields.count("qk_rope_head_dim", least=0) if latent else 0
        key = head_dim(fields)
        groups.append(
            AttentionLayers(
                layers=count,
                kv_heads=kv_heads(fields),
                key_dim=key,
                value_dim=fields.count("v_head_dim", default=key),
                latent_dim=latent + rope,
                window_tokens=window,
            )
        )
    return tuple(groups)


def attention_parameters(fields: Fields, hidden: int) -> int:
    """Matrices of one attention layer."""
    heads, key = fields.count("num_attention_heads", "n_head", "n_heads"), head_dim(fields)
    value = fields.count("v_head_dim", default=key)
    latent = fields.optional_count("kv_lora_rank")
    if latent:
        rope, nope = fields.count("qk_rope_head_dim", least=0), fields.count("qk_nope_head_dim", least=0)
        rank = fields.optional_count("q_lora_rank")
        query = hidden * rank + rank * heads * key if rank else hidden * heads * key
        return query + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden
    query = hidden * heads * key * (2 if fields.model_type == "qwen3_next" else 1)  # with its output gate
    return query + hidden * kv_heads(fields) * (key + value) + heads * value * hidden


def state_layers(fields: Fields, kinds: list[Kind], hidden: int) -> tuple[tuple[StateLayers, ...], int]:
    """Groups of layers with a state, and all their parameters."""
    groups: list[StateLayers] = []
    parameters = 0
    for kind, read in (("mamba", _mamba), ("delta", _delta), ("convolution", _convolution)):
        count = sum(k == kind for k in kinds)
        if not count:
            continue
        heads, state_bytes, each = read(fields, hidden)
        groups.append(StateLayers(layers=count, heads=heads, state_bytes=state_bytes))
        parameters += count * each
    return tuple(groups), parameters


def _mamba(fields: Fields, hidden: int) -> tuple[int, int, int]:
    """(heads, bytes of a sequence's state, parameters) of one layer, first or second generation."""
    state = fields.count("ssm_state_size", "mamba_d_state", "state_size")
    kernel = fields.count("conv_kernel", "mamba_d_conv", "d_conv", default=4)
    heads = fields.optional_count("mamba_num_heads", "mamba_n_heads")
    if not heads:
        inner = hidden * fields.count("mamba_expand", "expand", default=2)
        rank = fields.find("mamba_dt_rank", "time_step_rank")
        rank = -(-hidden // 16) if rank in (None, "auto") else int(rank)
        parameters = inner * (2 * hidden + kernel + rank + 2 * state + rank + state + 2 + hidden)
        return inner, inner * state * STATE_BYTES + inner * (kernel - 1) * 2, parameters
    width = fields.count("mamba_head_dim", "mamba_d_head", "head_dim")
    inner = heads * width
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


def _convolution(fields: Fields, hidden: int) -> tuple[int, int, int]:
    """Short gated convolution."""
    kernel = fields.count("conv_L_cache", default=3)
    return hidden, hidden * (kernel - 1) * 2, 4 * hidden * hidden + hidden * kernel
