"""Feed-forward part of each layer: dense, or experts of which a token meets a few; its parameters."""

from __future__ import annotations

from typing import Final

import msgspec

from tandem_operator.performance.config_fields import ConfigError, Fields

UNGATED: Final = frozenset(
    (
        "apertus", "arcee", "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt",
        "nemotron", "nemotron_h", "opt", "persimmon", "phi", "starcoder2",
    )
)  # fmt: skip
"""Families with two matrices per MLP; all others have three (a gate)."""

STATES_ONLY: Final = frozenset(("falcon_mamba", "mamba", "mamba2"))
"""Families without MLPs."""
BLOCKS: Final = {
    "mamba": "M",
    "linear_attention": "M",
    "attention": "*",
    "full_attention": "*",
    "mlp": "-",
    "dense": "-",
    "moe": "E",
}


class FeedForward(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over all layers."""

    dense: int
    """Parameters that every token meets: dense layers and shared experts."""
    routers: int
    routed: int
    """Parameters of all routed experts."""
    experts: int
    experts_active: int
    biases: int = 0
    """Of all routed experts, in families that have them; 16 bit whatever the matrices are."""

    @property
    def routed_active(self) -> int:
        """Of `routed`, those of one token."""
        return self.routed * self.experts_active // self.experts if self.experts else 0


def block_pattern(fields: Fields) -> str | None:
    """A letter per block for families whose blocks are a mixer or a feed-forward part alone: M * - E; else None."""
    pattern = fields.text("hybrid_override_pattern")
    listed = fields.find("layers_block_type", "layer_types")
    if not pattern and isinstance(listed, list) and not {"mlp", "moe"}.isdisjoint(listed):
        pattern = "".join(BLOCKS.get(kind, "?") for kind in listed)
    layers = fields.optional_count("num_hidden_layers")
    if pattern and layers and len(pattern) != layers:
        raise ConfigError(f"config.json: hybrid_override_pattern has {len(pattern)} letters for {layers} layers")
    return pattern or None


def feed_forward(fields: Fields, layers: int, hidden: int) -> FeedForward:
    """Raises ConfigError naming what is missing."""
    matrices = 2 if fields.model_type in UNGATED or fields.text("mlp_hidden_act") == "relu2" else 3
    experts = fields.optional_count(
        "num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts", "num_experts_total"
    )
    routed_layers = _routed_layers(fields, layers) if experts > 1 else 0
    dense_layers = _dense_layers(fields, layers) - (0 if fields.flag("enable_moe_block") else routed_layers)
    dense = dense_layers * matrices * hidden * _dense_size(fields, hidden) if dense_layers else 0
    if fields.flag("use_double_wide_mlp"):
        shared_kv = fields.optional_count("num_kv_shared_layers")
        dense += shared_kv * matrices * hidden * _dense_size(fields, hidden)
    if not routed_layers:
        return FeedForward(dense=dense, routers=0, routed=0, experts=0, experts_active=0)
    size = fields.count("moe_intermediate_size", "intermediate_size", "ffn_dim")
    active = fields.count(
        "num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_k", "experts_per_token", "top_k_experts"
    )
    shared = routed_layers * matrices * hidden * _shared_size(fields, size)
    return FeedForward(
        dense=dense + shared,
        routers=routed_layers * hidden * experts,
        routed=routed_layers * experts * matrices * hidden * size,
        experts=experts,
        experts_active=min(active, experts),
        biases=routed_layers * experts * (2 * size + hidden) if fields.model_type == "gpt_oss" else 0,
    )


def _dense_layers(fields: Fields, layers: int) -> int:
    """Layers with a feed-forward part: all, but for families that list blocks one by one."""
    if fields.model_type in STATES_ONLY:
        return 0
    pattern = block_pattern(fields)
    return layers if pattern is None else sum(letter in "-E" for letter in pattern)


def _dense_size(fields: Fields, hidden: int) -> int:
    names = ("intermediate_size_mlp", "intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner")
    if fields.model_type in UNGATED:
        return fields.count(*names, default=4 * hidden)
    size = fields.count(*names)
    if fields.flag("block_auto_adjust_ff_dim"):  # two thirds, rounded up
        step = fields.count("block_multiple_of", default=256)
        size = -(-(2 * size // 3) // step) * step
    return size


def _shared_size(fields: Fields, size: int) -> int:
    """Width of what every token meets beside its experts."""
    width = fields.optional_count("shared_expert_intermediate_size", "shared_intermediate_size")
    width = width or fields.optional_count("moe_shared_expert_intermediate_size")
    if width:
        return width * max(1, fields.optional_count("n_shared_experts", "num_shared_experts"))
    if fields.model_type in ("llama4", "llama4_text"):
        return size
    return size * fields.optional_count("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


def _routed_layers(fields: Fields, layers: int) -> int:
    """How many layers route."""
    pattern = block_pattern(fields)
    if pattern is not None:
        return sum(letter == "E" for letter in pattern)
    listed = fields.find("moe_layers")
    if isinstance(listed, list):
        return len(listed)
    types = fields.per_layer("mlp_layer_types", layers)
    if types is not None:
        return sum(kind == "sparse" for kind in types)
    if period := fields.optional_count("expert_layer_period"):
        offset = fields.optional_count("expert_layer_offset")
        return sum(i % period == offset for i in range(layers))
    step = fields.count("interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_freq", default=1)
    first = fields.optional_count("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
    dense = set(fields.find("mlp_only_layers") or ())
    if fields.find("moe_layer_freq") is not None:
        return sum(i >= first and i % step == 0 for i in range(layers))
    return sum(i >= first and (i + 1) % step == 0 and i not in dense for i in range(layers))
