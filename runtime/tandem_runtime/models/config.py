"""What config.json says about a model of the Llama family; what this runtime cannot honour is refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tandem_runtime.models.errors import ModelError

ARCHITECTURES: Final = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
ROPE_TYPES: Final = ("default", "linear", "llama3")


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding. The last three are used by type llama3 only; lengths in tokens."""

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of one model of the Llama family."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_context_tokens: int
    norm_eps: float
    rope: Rope
    tied_head: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    dtype: str
    eos_token_ids: frozenset[int]


def read_config(model_dir: Path) -> ModelConfig:
    """Reads config.json and, when there is one, generation_config.json. Raises ModelError."""
    path = model_dir / "config.json"
    raw = _read_json(path)
    architecture = next(iter(raw.get("architectures") or ["none"]))
    if architecture not in ARCHITECTURES:
        supported = ", ".join(ARCHITECTURES)
        raise ModelError(f"{path}: architecture {architecture!r} is not supported; supported are {supported}")
    _refuse_unsupported(path, raw, architecture)
    heads, hidden = _number(path, raw, "num_attention_heads"), _number(path, raw, "hidden_size")
    kv_heads = int(raw.get("num_key_value_heads") or heads)
    head_dim = int(raw.get("head_dim") or hidden // heads)
    if heads % kv_heads:
        raise ModelError(f"{path}: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if head_dim % 2:
        raise ModelError(f"{path}: head_dim {head_dim} is odd; rotary embedding needs an even one")
    bias = bool(raw.get("attention_bias", False))
    return ModelConfig(
        architecture=architecture,
        vocab_size=_number(path, raw, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_number(path, raw, "intermediate_size"),
        layers=_number(path, raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        max_context_tokens=_number(path, raw, "max_position_embeddings"),
        norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope=_read_rope(path, raw),
        tied_head=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=bias or architecture == "Qwen2ForCausalLM",
        output_bias=bias and architecture == "LlamaForCausalLM",
        mlp_bias=bool(raw.get("mlp_bias", False)),
        dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "bfloat16"),
        eos_token_ids=_read_eos(model_dir, raw),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{path}: {error.strerror}; a model folder needs config.json, tokenizer.json and safetensors"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{path} holds a {type(raw).__name__}; an object is needed")
    return raw


def _number(path: Path, raw: dict[str, Any], field: str) -> int:
    value = raw.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ModelError(f"{path}: {field} is {value!r}; a positive integer is needed")
    return value


def _refuse_unsupported(path: Path, raw: dict[str, Any], architecture: str) -> None:
    windowed = bool(raw.get("use_sliding_window")) if architecture == "Qwen2ForCausalLM" else raw.get("sliding_window")
    refusals = {
        "quantization_config": (raw.get("quantization_config"), "use the unquantised checkpoint"),
        "sliding_window": (windowed and raw.get("sliding_window"), "only full attention is computed"),
        "hidden_act": (raw.get("hidden_act", "silu") != "silu" and raw["hidden_act"], "only silu is computed"),
        "partial_rotary_factor": (
            raw.get("partial_rotary_factor", 1.0) != 1.0 and raw["partial_rotary_factor"],
            "only whole heads are rotated",
        ),
    }
    for field, (value, advice) in refusals.items():
        if value:
            shown = "set" if isinstance(value, dict) else repr(value)
            raise ModelError(f"{path}: {field} is {shown}, which is not supported; {advice}")


def _read_rope(path: Path, raw: dict[str, Any]) -> Rope:
    """Both spellings: rope_theta beside rope_scaling, and the later rope_parameters that holds all."""
    settings: dict[str, Any] = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind not in ROPE_TYPES:
        supported = ", ".join(ROPE_TYPES)
        raise ModelError(f"{path}: RoPE scaling of type {kind!r} is not supported; supported are {supported}")
    try:
        theta = float(settings.get("rope_theta", raw.get("rope_theta", 10000.0)))
        if kind == "default":
            return Rope(theta)
        if kind == "linear":
            return Rope(theta, kind, float(settings["factor"]))
        return Rope(
            theta,
            kind,
            float(settings["factor"]),
            float(settings["low_freq_factor"]),
            float(settings["high_freq_factor"]),
            int(settings["original_max_position_embeddings"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: RoPE scaling of type {kind!r} lacks a usable {error}") from error


def _read_eos(model_dir: Path, raw: dict[str, Any]) -> frozenset[int]:
    generation = model_dir / "generation_config.json"
    found = _read_json(generation).get("eos_token_id") if generation.exists() else None
    value = found if found is not None else raw.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) for token in ids):
        raise ModelError(f"{model_dir}: eos_token_id is {value!r}; a token id or a list of them is needed")
    return frozenset(ids)
