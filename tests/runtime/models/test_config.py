"""config.json: what is read, and what is refused by name."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"architectures": ["MambaForCausalLM"]},
            "'MambaForCausalLM' is not supported; supported are LlamaForCausalLM",
        ),
        ({"architectures": None}, "architecture 'none'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "type 'yarn' is not supported"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "lacks a usable 'low_freq_factor'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config is set"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 4096}, "sliding_window is 4096"),
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
