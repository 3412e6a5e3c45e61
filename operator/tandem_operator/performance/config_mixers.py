"""What mixes the tokens of each layer: attention of which kind, or a state; its parameters and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from tandem_operator.performance.config_experts import STATES_ONLY, block_pattern
from tandem_operator.performance.config_fields import ConfigError, Fields
from tandem_operator.performance.config_states import state_reader
from tandem_operator.performance.shape import AttentionLayers, StateLayers

Kind = Literal["full", "window", "chunk", "linear", "mamba", "convolution", "both", "none"]
"""both: attention and a state side by side in one layer."""

KINDS: Final[dict[str, Kind]] = {
    "full_attention": "full",
    "attention": "full",
    "indexed_attention": "full",
    "sliding_attention": "window",
    "chunked_attention": "chunk",
    "linear_attention": "linear",
    "mamba": "mamba",
    "mamba2": "mamba",
    "conv": "convolution",
}
PATTERN: Final[dict[str, Kind]] = {"M": "mamba", "*": "full", "-": "none", "E": "none"}
"""Letters of a list of blocks, each a mixer or a feed-forward part alone."""
GATED_QUERIES: Final = frozenset(("afmoe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"))
"""Families whose attention has an output gate as large as its queries."""


def layer_kinds(fields: Fields, layers: int) -> list[Kind]:
    """Kind of each layer's mixer, in order."""
    pattern = block_pattern(fields)
    if pattern is not None:
        return [_known(PATTERN, "hybrid_override_pattern", letter) for letter in pattern]
    if fields.model_type == "falcon_h1":
        return ["both"] * layers
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
        return ["full" if (i + 1) % interval == 0 else "linear" for i in range(layers)]
    linear = fields.find("linear_attn_config")
    if isinstance(linear, Mapping) and "full_attn_layers" in linear:  # counted from 1
        return ["full" if i + 1 in linear["full_attn_layers"] else "linear" for i in range(layers)]
    if fields.find("attn_type_list") is not None:
        return ["full" if kind else "linear" for kind in fields.per_layer("attn_type_list", layers) or ()]
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


def heads(fields: Fields) -> int:
    """Query heads."""
    return fields.count("num_attention_heads", "n_head", "n_heads")


def head_dim(fields: Fields, kind: Kind = "window") -> int:
    """Of queries and keys; some families have larger heads in the layers that see everything."""
    if fields.optional_count("kv_lora_rank"):
        return fields.count("qk_nope_head_dim", least=0) + fields.count("qk_rope_head_dim", least=0)
    if kind == "full" and (wide := fields.optional_count("global_head_dim")):
        return wide
    hidden = fields.count("hidden_size", "n_embd", "d_model")
    return fields.count("head_dim", "attention_head_dim", default=hidden // heads(fields))


def kv_heads(fields: Fields, kind: Kind = "window") -> int:
    """1 for multi-query; as many as query heads where nothing is said."""
    if fields.flag("multi_query") and not fields.flag("new_decoder_architecture"):
        return 1
    few = fields.optional_count("num_global_key_value_heads") if fields.flag("attention_k_eq_v") else 0
    if kind == "full" and few:
        return few
    return fields.count("num_key_value_heads", "num_kv_heads", "n_head_kv", default=heads(fields))


def attention_layers(fields: Fields, kinds: list[Kind]) -> tuple[AttentionLayers, ...]:
    """Groups by what they keep: all tokens, a window, a chunk; and layers that use the keys of others."""
    latent = fields.optional_count("kv_lora_rank")
    if latent:  # beside it the keys that find tokens for sparse attention, in 8 bit
        latent += fields.count("qk_rope_head_dim", least=0) + fields.optional_count("index_head_dim") // 2
    windows: dict[Kind, str | None] = {"full": None, "window": "sliding_window", "chunk": "attention_chunk_size"}
    own = len(kinds) - fields.optional_count("num_kv_shared_layers")
    groups: list[AttentionLayers] = []
    for kind, name in windows.items():
        for keeps, part in ((True, kinds[:own]), (False, kinds[own:])):
            count = sum(k == kind or (k == "both" and kind == "full") for k in part)
            if not count:
                continue
            key = head_dim(fields, kind)
            group = AttentionLayers(
                layers=count,
                kv_heads=kv_heads(fields, kind) if keeps else 0,
                key_dim=key,
                value_dim=fields.count("v_head_dim", default=key),
                latent_dim=latent,
                window_tokens=None if name is None else fields.count(name),
            )
            groups.append(group)
    return tuple(groups)


def attention_parameters(fields: Fields, groups: tuple[AttentionLayers, ...], hidden: int) -> int:
    """Matrices of all attention layers."""
    return sum(group.layers * _attention_parameters(fields, group, hidden) for group in groups)


def _attention_parameters(fields: Fields, group: AttentionLayers, hidden: int) -> int:
    queries, key, value = heads(fields), group.key_dim, group.value_dim
    latent = fields.optional_count("kv_lora_rank")
    if latent:
        rope, nope = fields.count("qk_rope_head_dim", least=0), fields.count("qk_nope_head_dim", least=0)
        rank = fields.optional_count("q_lora_rank")
        query = hidden * rank + rank * queries * key if rank else hidden * queries * key
        finders, width = fields.optional_count("index_n_heads"), fields.optional_count("index_head_dim")
        index = (rank or hidden) * finders * width + hidden * (width + finders)
        kept = hidden * (latent + rope) + latent * queries * (nope + value)
        return query + index + kept + queries * value * hidden
    gated = fields.model_type in GATED_QUERIES or fields.flag("attn_output_gate")
    same = fields.flag("attention_k_eq_v") and group.window_tokens is None
    kept = hidden * group.kv_heads * (key if same else key + value)
    return hidden * queries * key * (2 if gated else 1) + kept + queries * value * hidden


def state_layers(fields: Fields, kinds: list[Kind], hidden: int) -> tuple[tuple[StateLayers, ...], int]:
    """Groups of layers with a state, and all their parameters."""
    groups: list[StateLayers] = []
    parameters = 0
    for kind in ("mamba", "linear", "convolution"):
        count = sum(k == kind or (k == "both" and kind == "mamba") for k in kinds)
        if not count:
            continue
        units, state_bytes, each = state_reader(fields, kind)(fields, hidden)
        groups.append(StateLayers(layers=count, heads=units, state_bytes=state_bytes))
        parameters += count * each
    return tuple(groups), parameters
