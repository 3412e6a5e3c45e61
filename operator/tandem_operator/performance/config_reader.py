"""Reads a ModelShape from config.json and, where there is one, the safetensors index. Weights are never opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tandem_operator.performance.config_experts import STATES_ONLY, block_pattern, feed_forward
from tandem_operator.performance.config_fields import ConfigError, Fields
from tandem_operator.performance.config_mixers import (
    attention_layers,
    attention_parameters,
    head_dim,
    heads,
    layer_kinds,
    state_layers,
)
from tandem_operator.performance.hardware import Quantization
from tandem_operator.performance.quantization import SCHEMES
from tandem_operator.performance.shape import ModelShape

DTYPE_BYTES: Final = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}
TIED_BY_DEFAULT: Final = frozenset(
    (
        "cohere",
        "cohere2",
        "falcon",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "gpt2",
        "lfm2",
        "mpt",
        "opt",
        "starcoder2",
    )
)
"""Families whose head is the embedding when config.json does not say; all others have a head of their own."""


CONTEXT_NAMES: Final = (
    "max_position_embeddings", "model_max_length", "n_positions", "max_sequence_length", "max_seq_len", "seq_length",
)  # fmt: skip
UNLIMITED_CONTEXT_TOKENS: Final = 1 << 20
"""Of models that keep states only and name no limit."""
LEARNED_POSITIONS: Final = frozenset(("gpt2", "gpt_bigcode", "gpt_neo", "opt"))


def read_shape(config: Mapping[str, Any], index: Mapping[str, Any] | None = None, name: str = "") -> ModelShape:
    """`index`: model.safetensors.index.json, with the exact size. Raises ConfigError naming the field."""
    fields = Fields(config)
    pattern = block_pattern(fields)
    layers = fields.count(
        "num_hidden_layers", "n_layer", "n_layers", "num_layers", default=len(pattern) if pattern else None
    )
    hidden = fields.count("hidden_size", "n_embd", "d_model")
    vocabulary = fields.count("vocab_size")
    kinds = layer_kinds(fields, layers)
    attention = attention_layers(fields, kinds)
    state, state_parameters = state_layers(fields, kinds, hidden)
    feed = feed_forward(fields, layers, hidden)
    attended = sum(group.layers for group in attention)
    mixers = attention_parameters(fields, attention, hidden) + state_parameters
    tied = fields.flag("tie_word_embeddings", fields.model_type in TIED_BY_DEFAULT)
    embedding = vocabulary * hidden
    looked_up = per_layer_embedding(fields, layers) + learned_positions(fields, hidden)
    rest = (1 if tied else 2) * embedding + feed.routers + (2 * layers + 1) * hidden
    feeding = per_layer_projections(fields, layers, hidden)
    quantization = stored_quantization(fields)
    only_experts = quantization == "MXFP4" and feed.experts > 0
    shrunk, shrunk_active = feed.routed, feed.routed_active
    unshrunk = mixers + feed.dense + feeding
    if not only_experts:
        shrunk, shrunk_active, unshrunk = shrunk + unshrunk, shrunk_active + unshrunk, 0
    unit = DTYPE_BYTES.get(fields.text("torch_dtype", "dtype"), 2)
    per_shrunk = unit if quantization == "None" else SCHEMES[quantization].bytes_per_parameter
    return ModelShape(
        name=name,
        architecture=fields.model_type or next(iter(fields.find("architectures") or ()), ""),
        layers=layers - kinds.count("none"),
        hidden=hidden,
        heads=heads(fields) if attended else 1,
        head_dim=head_dim(fields) if attended else 1,
        vocabulary=vocabulary,
        parameters=shrunk + unshrunk + rest + looked_up + feed.biases,
        active_parameters=shrunk_active + unshrunk + rest - (0 if tied else embedding),
        linear_parameters=shrunk,
        active_linear_parameters=shrunk_active,
        expert_parameters=feed.routed,
        experts=feed.experts,
        experts_active=feed.experts_active,
        attention=attention,
        state=state,
        max_context_tokens=fields.count(
            *CONTEXT_NAMES, default=UNLIMITED_CONTEXT_TOKENS if fields.model_type in STATES_ONLY else None
        ),
        tied_head=tied,
        weight_bytes=_total_size(index)
        or round(shrunk * per_shrunk + (unshrunk + rest + looked_up + feed.biases) * unit),
        stored_quantization=quantization,
        stored_bytes_per_parameter=unit,
    )


def per_layer_embedding(fields: Fields, layers: int) -> int:
    """Tables that give each layer a vector per token: looked up, never multiplied."""
    width = fields.optional_count("hidden_size_per_layer_input")
    return fields.count("vocab_size_per_layer_input", "vocab_size") * layers * width if width else 0


def per_layer_projections(fields: Fields, layers: int, hidden: int) -> int:
    """Matrices that bring those vectors into the layers: one for all, and two in each."""
    return 3 * hidden * layers * fields.optional_count("hidden_size_per_layer_input")


def learned_positions(fields: Fields, hidden: int) -> int:
    """A vector per position, in old families."""
    return fields.count(*CONTEXT_NAMES) * hidden if fields.model_type in LEARNED_POSITIONS else 0


def _total_size(index: Mapping[str, Any] | None) -> int:
    if index is None:
        return 0
    metadata = index.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    if isinstance(size, bool) or not isinstance(size, int | float) or size <= 0:
        raise ConfigError(f"the safetensors index has no metadata.total_size above 0, but {size!r}")
    return int(size)


def stored_quantization(fields: Fields) -> Quantization:
    """What quantization_config says that the checkpoint comes in."""
    config = fields.find("quantization_config")
    if config is None:
        return "None"
    if not isinstance(config, Mapping):
        raise ConfigError(f"config.json: quantization_config must be an object, is {config!r}")
    method = str(config.get("quant_method") or config.get("quant_algo") or "").lower()
    bits = config.get("bits", config.get("w_bit"))
    if method == "compressed-tensors":
        return _compressed(config)
    if method == "modelopt":
        method = str(config.get("quant_algo", "")).lower()
    if method in ("gptq", "awq", "auto-round", "autoround"):
        return "Int8" if bits == 8 else "Int4"
    if method == "bitsandbytes":
        return "Int8" if config.get("load_in_8bit") else "Int4"
    known: dict[str, Quantization] = {"fp8": "FP8", "fbgemm_fp8": "FP8", "mxfp4": "MXFP4", "nvfp4": "NVFP4"}
    if method in known:
        return known[method]
    raise ConfigError(f"config.json: quantization_config.quant_method {method!r} is not known")


def _compressed(config: Mapping[str, Any]) -> Quantization:
    groups = config.get("config_groups")
    group = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(group, Mapping) or not isinstance(weights, Mapping):
        raise ConfigError("config.json: quantization_config.config_groups has no weights")
    bits, kind = weights.get("num_bits"), weights.get("type")
    if bits == 8:
        if kind == "float":
            return "FP8"
        return "Int8Dynamic" if group.get("input_activations") else "Int8"
    if bits == 4:
        return "NVFP4" if kind == "float" else "Int4"
    raise ConfigError(f"config.json: quantization_config has weights of {bits!r} bits {kind!r}; known are 4 and 8")
