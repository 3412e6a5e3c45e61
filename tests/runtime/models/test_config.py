"""config.json: what is read, and what is refused by name."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from typing import Any

import pytest
from tandem_runtime.models.config import ModelConfig, Rope, read_config
from tandem_runtime.models.errors import ModelError

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 7,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def read(directory: Path, **changes: Any) -> ModelConfig:
    (directory / "config.json").write_text(json.dumps(LLAMA | changes))
    return read_config(directory)


def test_defaults_are_those_of_the_format(tmp_path: Path) -> None:
    config = read(tmp_path, num_key_value_heads=None)
    assert (config.kv_heads, config.head_dim, config.rope, config.eos_token_ids) == (4, 16, Rope(), frozenset({7}))


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"rope_theta": 5e5}, Rope(5e5)),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, Rope(1e4, "linear", 2.0)),
        ({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3"} | LLAMA3}, Rope(5e5, "llama3", 8.0, 1.0, 4.0, 64)),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 3e4}}, Rope(3e4)),
        ({"rope_scaling": None, "rope_theta": None}, Rope()),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
            Rope(1e4, "yarn", 4.0, original_context_tokens=64, attention_factor=0.1 * log(4.0) + 1.0),
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 64, "attention_factor": 1.0}},
            Rope(1e4, "yarn", 4.0, original_context_tokens=64),
        ),
    ],
)
def test_both_spellings_of_rope_are_read(tmp_path: Path, changes: dict[str, Any], want: Rope) -> None:
    assert read(tmp_path, **changes).rope == want


def test_generation_config_names_the_ends_when_it_exists(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [8, 9]}')
    assert read(tmp_path).eos_token_ids == frozenset({8, 9})


def test_qwen2_with_its_window_switched_off_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, architectures=["Qwen2ForCausalLM"], sliding_window=128, use_sliding_window=False)
    assert (config.qkv_bias, config.output_bias) == (True, False)


def test_windows_are_those_of_transformers(tmp_path: Path) -> None:
    mistral, qwen3 = ["MistralForCausalLM"], ["Qwen3ForCausalLM"]
    assert read(tmp_path, architectures=mistral).windows == (4096, 4096)  # the class's default, when left out
    assert read(tmp_path, architectures=mistral, sliding_window=None).windows == ()
    late = read(tmp_path, architectures=qwen3, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    assert (late.windows, late.window(0), late.window(1)) == ((0, 8), 0, 8)
    assert (late.head_dim, late.qk_norm) == (128, True)  # of the class too: config.json may leave head_dim out


def test_yarn_makes_the_context_longer_where_config_json_still_says_the_original_one(tmp_path: Path) -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    assert read(tmp_path, rope_scaling=scaling).max_context_tokens == 1024
    assert read(tmp_path, rope_scaling=scaling, max_position_embeddings=2048).max_context_tokens == 2048


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"architectures": ["MambaForCausalLM"]},
            "'MambaForCausalLM' is not supported; supported are LlamaForCausalLM",
        ),
        ({"architectures": None}, "architecture 'none'"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4}}, "rope_type is 'longrope', which is not supported"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type is 'dynamic', which is not supported"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "lacks a usable 'low_freq_factor'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": -2.0}}, "lacks a usable 'factor' (it is -2.0)"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "short_factor": [1]}}, "rope_scaling.short_factor"),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [8, 8]}}, "rope_parameters.mrope_section"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters.full_attention"),
        ({"architectures": ["MixtralForCausalLM"]}, "'MixtralForCausalLM' is not supported"),
        ({"num_local_experts": 8}, "num_local_experts is 8; mixtures of experts are not supported"),
        ({"architectures": ["MistralForCausalLM"], "attention_bias": True}, "attention_bias is True, which Mistral"),
        ({"architectures": ["Qwen3ForCausalLM"], "mlp_bias": True}, "mlp_bias is True, which Qwen3"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"sliding_window": 4096}, "sliding_window is 4096, which LlamaForCausalLM does not have"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": "all"}, "sliding_window is 'all'"),
        (
            {"architectures": ["Qwen3ForCausalLM"], "layer_types": ["full_attention", "linear_attention"]},
            "layer_types is ['full_attention', 'linear_attention']",
        ),
        (
            {"architectures": ["Qwen3ForCausalLM"], "layer_types": ["full_attention", "sliding_attention"]},
            "which Qwen3ForCausalLM has not switched on",
        ),
        ({"head_dim": 0}, "head_dim is 0; a positive integer is needed"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config is set"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"hidden_size": "64"}, "hidden_size is '64'; a positive integer is needed"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(tmp_path, **changes)
    assert named in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_a_missing_or_broken_file_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_config(tmp_path)
