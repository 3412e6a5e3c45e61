"""config.json to counts: checked on what is published of real models; what is missing is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tandem_operator.performance.config_fields import ConfigError
from tandem_operator.performance.config_reader import read_shape
from tandem_operator.performance.quantization import active_weight_bytes, weight_bytes
from tandem_operator.performance.shape import AttentionLayers

from tests.operator.performance.families import FAMILIES
from tests.operator.performance.public_models import PUBLIC_MODELS, dense

NAMES = list(PUBLIC_MODELS)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_that_are_published(name: str) -> None:
    model = PUBLIC_MODELS[name]
    shape = read_shape(model.config)
    assert shape.parameters == pytest.approx(model.parameters, rel=5e-4)
    if model.active is not None:
        assert shape.active_parameters == pytest.approx(model.active, rel=0.03)
    assert shape.active_parameters <= shape.parameters
    assert shape.active_linear_parameters <= shape.linear_parameters <= shape.parameters


@pytest.mark.parametrize("name", NAMES)
def test_kv_bytes_per_token_are_those_worked_out_by_hand(name: str) -> None:
    model = PUBLIC_MODELS[name]
    assert read_shape(model.config).kv_bytes_per_token() == model.kv_bytes
    assert read_shape(model.config).kv_bytes_per_token(kv_dtype_bytes=1) == model.kv_bytes / 2


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("Llama-3.1-8B", [(32, None)]),
        ("Mistral-7B-v0.1", [(32, 4096)]),
        ("Gemma-2-9B", [(21, None), (21, 4096)]),
        ("Gemma-3-27B", [(10, None), (52, 1024)]),
        ("gpt-oss-120b", [(18, None), (18, 128)]),
        ("Qwen2.5-7B", [(28, None)]),
        ("Jamba-v0.1", [(4, None)]),
        ("Nemotron-H-8B", [(4, None)]),
        ("Qwen3-Next-80B-A3B", [(12, None)]),
    ],
)
def test_layers_are_grouped_by_what_they_keep(name: str, groups: list[tuple[int, int | None]]) -> None:
    shape = read_shape(PUBLIC_MODELS[name].config)
    assert [(group.layers, group.window_tokens) for group in shape.attention] == groups


def test_a_window_holds_no_more_than_its_size() -> None:
    shape = read_shape(PUBLIC_MODELS["Gemma-3-27B"].config)
    layer = 2 * 16 * 128 * 2
    assert shape.sequence_bytes(500) == 62 * layer * 500
    assert shape.sequence_bytes(32768) == layer * (10 * 32768 + 52 * 1024)


@pytest.mark.parametrize(
    ("name", "state_bytes"),
    [
        ("Jamba-v0.1", 28 * (8192 * 16 * 4 + 8192 * 3 * 2)),  # inner width 2 x 4096, 16 states each, kernel of 4
        ("Nemotron-H-8B", 24 * (128 * 64 * 128 * 4 + (8192 + 2 * 8 * 128) * 3 * 2)),
        ("Qwen3-Next-80B-A3B", 36 * (32 * 128 * 128 * 4 + (2 * 16 * 128 + 32 * 128) * 3 * 2)),
        ("Llama-3.1-8B", 0),
    ],
)
def test_states_are_constant_per_sequence(name: str, state_bytes: int) -> None:
    shape = read_shape(PUBLIC_MODELS[name].config)
    assert shape.state_bytes_per_sequence() == state_bytes
    assert shape.sequence_bytes(1000) - shape.sequence_bytes(0) == 1000 * shape.kv_bytes_per_token()


@pytest.mark.parametrize("name", list(FAMILIES))
def test_layers_that_are_not_all_alike_are_counted_as_they_are(name: str) -> None:
    family = FAMILIES[name]
    shape = read_shape(family.config)
    assert shape.parameters == pytest.approx(family.parameters, rel=5e-5)
    assert shape.kv_bytes_per_token() == family.kv_bytes
    assert shape.state_bytes_per_sequence() == family.state_bytes


def test_blocks_may_be_letters_or_a_list() -> None:
    letters = FAMILIES["Nemotron, blocks with experts"].config
    listed = {k: v for k, v in letters.items() if k not in ("hybrid_override_pattern", "num_hidden_layers")}
    assert read_shape({**listed, "layers_block_type": ["mamba", "moe", "attention", "mlp"]}) == read_shape(letters)


def test_tables_per_layer_are_loaded_and_never_multiplied() -> None:
    shape = read_shape(FAMILIES["Gemma 4, shared keys and tables per layer"].config)
    assert shape.parameters - shape.active_parameters == 262144 * 35 * 256


def test_a_latent_is_whole_on_every_device_and_gqa_shards_are_whole_heads() -> None:
    latent = read_shape(PUBLIC_MODELS["DeepSeek-V3"].config)
    assert latent.kv_bytes_per_token(tensor_parallel=8) == latent.kv_bytes_per_token() == 70_272
    grouped = read_shape(PUBLIC_MODELS["Qwen3-235B-A22B"].config)
    one_head = 192_512 / 4
    assert [grouped.kv_bytes_per_token(tensor_parallel=tp) / one_head for tp in (1, 2, 3, 4, 8)] == [4, 2, 2, 1, 1]


def test_the_index_says_the_exact_size() -> None:
    config = PUBLIC_MODELS["Llama-3.1-8B"].config
    index = {"metadata": {"total_size": 16_060_522_496}, "weight_map": {}}
    assert read_shape(config, index).weight_bytes == 16_060_522_496
    assert read_shape(config).weight_bytes == 2 * 8_030_261_248
    for metadata in ({}, {"total_size": "big"}, {"total_size": 0}):
        with pytest.raises(ConfigError, match=r"metadata\.total_size"):
            read_shape(config, {"metadata": metadata})


@pytest.mark.parametrize(
    "field",
    ["num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size",
     "max_position_embeddings"],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, 0, "many", 1.5, True])
def test_what_is_missing_or_odd_is_named(field: str, value: Any) -> None:
    config = {**PUBLIC_MODELS["Llama-3.1-8B"].config, field: value}
    with pytest.raises(ConfigError, match=field):
        read_shape(config)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"layer_types": ["full_attention"] * 3}, "layer_types"),
        ({"layer_types": ["telepathy"] * 32}, "telepathy"),
        ({"hybrid_override_pattern": "M" * 31 + "?"}, "hybrid_override_pattern"),
        ({"layer_types": ["mamba"] * 32}, "ssm_state_size"),
        ({"layer_types": ["linear_attention"] * 32}, "linear_num_key_heads"),
        ({"layer_types": ["chunked_attention"] * 32}, "attention_chunk_size"),
        ({"num_local_experts": 8}, "num_experts_per_tok"),
        ({"kv_lora_rank": 512}, "qk_rope_head_dim"),
        ({"quantization_config": {"quant_method": "magic"}}, "magic"),
        ({"quantization_config": "fp8"}, "quantization_config"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "config_groups"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"model_type": 3}, "model_type"),
    ],
)
def test_what_a_family_needs_is_named_too(more: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_shape({**PUBLIC_MODELS["Llama-3.1-8B"].config, **more})


def compressed(bits: int, kind: str, activations: bool = False) -> dict[str, Any]:
    group = {"weights": {"num_bits": bits, "type": kind}, "input_activations": {"num_bits": 8} if activations else None}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"quant_method": "fp8"}, "FP8"),
        ({"quant_method": "mxfp4"}, "MXFP4"),
        ({"quant_method": "awq", "bits": 4}, "Int4"),
        ({"quant_method": "gptq", "bits": 8}, "Int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "Int4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4"),
        (compressed(8, "float"), "FP8"),
        (compressed(8, "int", activations=True), "Int8Dynamic"),
        (compressed(8, "int"), "Int8"),
        (compressed(4, "int"), "Int4"),
        (compressed(4, "float"), "NVFP4"),
    ],
)
def test_a_quantised_checkpoint_says_so(config: dict[str, Any], kind: str) -> None:
    plain = PUBLIC_MODELS["Llama-3.1-8B"].config
    shape = read_shape({**plain, "quantization_config": config})
    assert shape.stored_quantization == kind
    assert shape.weight_bytes < 0.6 * read_shape(plain).weight_bytes
    assert weight_bytes(shape, "None") == shape.weight_bytes


def test_published_sizes_of_quantised_checkpoints_are_met() -> None:
    gpt_oss = read_shape(PUBLIC_MODELS["gpt-oss-120b"].config)
    assert gpt_oss.weight_bytes == pytest.approx(60.8 * 2**30, rel=0.01)  # its model card: 60.8 GiB
    llama = read_shape(PUBLIC_MODELS["Llama-3.1-70B"].config)
    assert weight_bytes(llama, "FP8") == pytest.approx(72.7e9, rel=0.01)  # published FP8 checkpoints of it
    assert weight_bytes(llama, "Int4") == pytest.approx(39.8e9, rel=0.02)  # published INT4 AWQ ones


def test_a_step_reads_the_experts_that_its_tokens_meet() -> None:
    shape = read_shape(PUBLIC_MODELS["Qwen3-235B-A22B"].config)
    one = active_weight_bytes(shape, sequences=1)
    assert one == pytest.approx(2 * shape.active_parameters, rel=1e-6)
    sizes = [active_weight_bytes(shape, sequences=n) for n in (1, 4, 16, 64, 1024)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == pytest.approx(2 * (shape.parameters - 151936 * 4096), rel=1e-3)


def test_a_multimodal_model_is_its_language_part() -> None:
    text = PUBLIC_MODELS["Llama-3.1-8B"].config
    config = {
        "model_type": "some_vl",
        "torch_dtype": "float32",
        "vision_config": {"hidden_size": 1},
        "text_config": text,
    }
    assert read_shape(config) == read_shape(text)
    without = {k: v for k, v in text.items() if k != "torch_dtype"}
    assert read_shape({**config, "text_config": without}).stored_bytes_per_parameter == 4


def test_chunked_attention_keeps_a_chunk_but_for_every_fourth_layer() -> None:
    config = dense(48, 5120, 8192, 40, 8, 202048, 10485760, model_type="llama4_text", head_dim=128,
                   attention_chunk_size=8192, num_local_experts=16, num_experts_per_tok=1, intermediate_size_mlp=16384,
                   interleave_moe_layer_step=1)  # fmt: skip
    shape = read_shape(config)
    assert [(group.layers, group.window_tokens) for group in shape.attention] == [(12, None), (36, 8192)]
    assert shape.parameters == pytest.approx(107.77e9, rel=1e-3)
    assert shape.active_parameters == pytest.approx(17e9 - 202048 * 5120, rel=0.02)  # published with the embedding


def test_windows_of_qwen2_begin_at_max_window_layers() -> None:
    more = {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 20}
    groups = read_shape({**PUBLIC_MODELS["Llama-3.1-8B"].config, **more}).attention
    assert [(group.layers, group.window_tokens) for group in groups] == [(20, None), (12, 4096)]


def test_a_model_without_attention_keeps_no_kv() -> None:
    config = {"model_type": "mamba2", "num_hidden_layers": 64, "hidden_size": 2560, "vocab_size": 50288,
              "state_size": 128, "expand": 2, "mamba_num_heads": 80, "mamba_head_dim": 64, "n_groups": 1,
              "intermediate_size": 5120, "max_position_embeddings": 8192, "tie_word_embeddings": True}  # fmt: skip
    shape = read_shape(config)
    assert shape.parameters == pytest.approx(2_702_599_680, rel=1e-3)
    assert shape.kv_bytes_per_token() == 0
    assert shape.state_bytes_per_sequence() > 0


def test_shapes_survive_json() -> None:
    for model in PUBLIC_MODELS.values():
        shape = read_shape(model.config, name="x")
        assert msgspec.json.decode(msgspec.json.encode(shape), type=type(shape)) == shape
    assert AttentionLayers(layers=1, kv_heads=1, key_dim=1, value_dim=1).held_tokens(7) == 7
