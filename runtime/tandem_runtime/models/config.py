"""What config.json says about a model of the Llama family; what this runtime cannot honour is refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tandem_runtime.models.errors import ModelError
from tandem_runtime.models.families import BY_ARCHITECTURE, Family, layer_windows
from tandem_runtime.models.rope_config import Rope, read_rope

__all__ = ["ModelConfig", "Rope", "read_config"]

REFUSED: Final[dict[str, tuple[Any, ...]]] = {
    "quantization_config": (None,),
    "compression_config": (None,),
    "hidden_act": ("silu", "swish"),
    "hidden_activation": ("silu", "swish", None),
    "partial_rotary_factor": (1.0, None),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "query_pre_attn_scalar": (None,),
    "attention_chunk_size": (None,),
    "attention_multiplier": (1.0, None),
    "embedding_multiplier": (1.0, None),
    "residual_multiplier": (1.0, None),
    "logits_scaling": (1.0, None),
    "logit_scale": (1.0, None),
    "clip_qkv": (None,),
    "alibi": (False, None),
    "position_embedding_type": ("rotary", "rope", None),
    "use_qk_norm": (False, None),
    "qk_layernorm": (False, None),
    "no_rope_layers": ([], None),
    "no_rope_layer_interval": (0, None),
    "use_mrope": (False, None),
    "dual_chunk_attention_config": (None,),
    "num_nextn_predict_layers": (0, None),
    "vision_config": (None,),
    "audio_config": (None,),
    "text_config": (None,),
}
"""Fields that would change what is computed, and the values at which they do not."""
EXPERTS: Final = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
ADVICE: Final = {
    "quantization_config": "use the unquantised checkpoint",
    "hidden_act": "only silu is computed",
    "partial_rotary_factor": "only whole heads are rotated",
}


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
    qk_norm: bool = False
    """Query and key of each head are normalised before they are rotated."""
    windows: tuple[int, ...] = ()
    """Tokens that each layer attends to at most, its own included; 0 is all; empty: all layers attend to all."""

    def window(self, layer: int) -> int:
        """Of one layer; 0 is all."""
        return self.windows[layer] if self.windows else 0

    @property
    def window_tokens(self) -> int:
        """Tokens that no layer looks back beyond, the last one included; 0: some layer attends to all."""
        return max(self.windows, default=0) if all(self.windows) else 0


def read_config(model_dir: Path) -> ModelConfig:
    """Reads config.json and, when there is one, generation_config.json. Raises ModelError."""
    path = model_dir / "config.json"
    raw = _read_json(path)
    architecture = next(iter(raw.get("architectures") or ["none"]))
    family = BY_ARCHITECTURE.get(architecture)
    if family is None:
        supported = ", ".join(BY_ARCHITECTURE)
        raise ModelError(f"{path}: architecture {architecture!r} is not supported; supported are {supported}")
    _refuse_unsupported(path, raw, family)
    heads, hidden = _number(path, raw, "num_attention_heads"), _number(path, raw, "hidden_size")
    layers = _number(path, raw, "num_hidden_layers")
    kv_heads = _number(path, raw, "num_key_value_heads") if raw.get("num_key_value_heads") is not None else heads
    head_dim = _number(path, raw, "head_dim") if raw.get("head_dim") is not None else family.head_dim or hidden // heads
    if heads % kv_heads:
        raise ModelError(f"{path}: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if head_dim % 2:
        raise ModelError(f"{path}: head_dim {head_dim} is odd; rotary embedding needs an even one")
    try:
        rope = read_rope(raw)
        windows = layer_windows(family, raw, layers)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
    attention_bias, mlp_bias = bool(raw.get("attention_bias")), bool(raw.get("mlp_bias"))
    return ModelConfig(
        architecture=architecture,
        vocab_size=_number(path, raw, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_number(path, raw, "intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        max_context_tokens=_context_tokens(_number(path, raw, "max_position_embeddings"), rope),
        norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope=rope,
        tied_head=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=attention_bias if family.qkv_bias is None else family.qkv_bias,
        output_bias=attention_bias if family.output_bias is None else family.output_bias,
        mlp_bias=mlp_bias if family.mlp_bias is None else family.mlp_bias,
        dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "bfloat16"),
        eos_token_ids=_read_eos(model_dir, raw),
        qk_norm=family.qk_norm,
        windows=windows if any(windows) else (),
    )


def _context_tokens(tokens: int, rope: Rope) -> int:
    """With yarn, max_position_embeddings is often still the original context, which the scaling makes longer."""
    return max(tokens, int(rope.original_context_tokens * rope.factor)) if rope.kind == "yarn" else tokens


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


def _refuse_unsupported(path: Path, raw: dict[str, Any], family: Family) -> None:
    """Raises ModelError for what would change the numbers and is not computed: nothing is ignored silently."""
    for field, neutral in REFUSED.items():
        if field in raw and raw[field] not in neutral:
            shown = "set" if isinstance(raw[field], dict) else repr(raw[field])
            advice = ADVICE.get(field, "choose a model without it")
            raise ModelError(f"{path}: {field} is {shown}, which is not supported; {advice}")
    for field in EXPERTS:
        if raw.get(field):
            raise ModelError(f"{path}: {field} is {raw[field]!r}; mixtures of experts are not supported")
    for field, always in (("attention_bias", family.qkv_bias), ("mlp_bias", family.mlp_bias)):
        if always is False and raw.get(field):
            raise ModelError(f"{path}: {field} is {raw[field]!r}, which {family.architecture} does not have")
    windowed = raw.get("use_sliding_window") or raw.get("sliding_window")
    if family.window == "none" and windowed:
        raise ModelError(f"{path}: sliding_window is {windowed!r}, which {family.architecture} does not have")


def _read_eos(model_dir: Path, raw: dict[str, Any]) -> frozenset[int]:
    generation = model_dir / "generation_config.json"
    found = _read_json(generation).get("eos_token_id") if generation.exists() else None
    value = found if found is not None else raw.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) for token in ids):
        raise ModelError(f"{model_dir}: eos_token_id is {value!r}; a token id or a list of them is needed")
    return frozenset(ids)
