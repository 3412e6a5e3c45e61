"""config.json of models as published: read without complaint, and what sets each apart is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tandem_runtime.models.config import read_config
from tandem_runtime.models.errors import ModelError


def published(architecture: str, layers: int, hidden: int, size: int, heads: int, kv: int, **more: Any) -> Any:
    """With what every published file has and nobody computes with."""
    return {
        "architectures": [architecture],
        "model_type": architecture.removesuffix("ForCausalLM").lower(),
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": size,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-05,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.0",
        "use_cache": True,
        "vocab_size": 32000,
        **more,
    }


LLAMA3 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
QWEN: dict[str, Any] = {"max_position_embeddings": 32768, "rope_theta": 1e6, "use_sliding_window": False}

MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Llama 2 7B": (
        published("LlamaForCausalLM", 32, 4096, 11008, 32, 32, max_position_embeddings=4096, pretraining_tp=1)
        | {"rope_scaling": None, "torch_dtype": "float16"},
        {"head_dim": 128, "dtype": "float16", "windows": ()},
    ),
    "Llama 3.2 1B": (
        published("LlamaForCausalLM", 16, 2048, 8192, 32, 8, max_position_embeddings=131072, rope_theta=5e5)
        | {"head_dim": 64, "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}
        | {"rope_scaling": LLAMA3, "tie_word_embeddings": True, "eos_token_id": [128001, 128008, 128009]},
        {"head_dim": 64, "tied_head": True, "eos_token_ids": frozenset({128001, 128008, 128009})},
    ),
    "Mistral 7B v0.1": (
        published("MistralForCausalLM", 32, 4096, 14336, 32, 8, max_position_embeddings=32768, sliding_window=4096),
        {"windows": (4096,) * 32, "max_context_tokens": 32768},
    ),
    "Mistral 7B v0.3": (
        published("MistralForCausalLM", 32, 4096, 14336, 32, 8, max_position_embeddings=32768, sliding_window=None),
        {"windows": (), "qkv_bias": False},
    ),
    "Mistral Nemo": (
        published("MistralForCausalLM", 40, 5120, 14336, 32, 8, max_position_embeddings=131072, sliding_window=None)
        | {"head_dim": 128, "rope_theta": 1e6},
        {"head_dim": 128, "windows": ()},
    ),
    "Qwen2.5 7B": (
        published("Qwen2ForCausalLM", 28, 3584, 18944, 28, 4, sliding_window=131072, max_window_layers=28, **QWEN),
        {"qkv_bias": True, "output_bias": False, "windows": (), "max_context_tokens": 32768},
    ),
    "Qwen2.5 7B, long": (
        published("Qwen2ForCausalLM", 28, 3584, 18944, 28, 4, max_window_layers=28, rope_scaling=YARN, **QWEN),
        {"max_context_tokens": 131072},
    ),
    "R1 distilled into Qwen": (
        published("Qwen2ForCausalLM", 28, 1536, 8960, 12, 2, sliding_window=4096, use_mrope=False, **QWEN),
        {"windows": ()},
    ),
    "Qwen3 8B": (
        published("Qwen3ForCausalLM", 36, 4096, 12288, 32, 8, head_dim=128, attention_bias=False, **QWEN)
        | {"rope_scaling": None, "sliding_window": None, "max_window_layers": 36},
        {"qk_norm": True, "qkv_bias": False, "head_dim": 128, "windows": ()},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_published_models_are_read(tmp_path: Path, name: str) -> None:
    raw, wanted = MODELS[name]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = read_config(tmp_path)
    assert {field: getattr(config, field) for field in wanted} == wanted


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["MixtralForCausalLM"], "num_local_experts": 8}, "MixtralForCausalLM"),
        ({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 128}, "Qwen3MoeForCausalLM"),
        ({"architectures": ["Gemma2ForCausalLM"]}, "Gemma2ForCausalLM"),
        ({"architectures": ["Phi3ForCausalLM"]}, "Phi3ForCausalLM"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 32.0}}, "longrope"),
    ],
)
def test_published_models_of_other_kinds_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MODELS["Llama 2 7B"][0] | changes))
    with pytest.raises(ModelError, match=named):
        read_config(tmp_path)
