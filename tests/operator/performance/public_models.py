"""Config values of public models, as published: facts that the formulas are checked against."""

from __future__ import annotations

from typing import Any, Final

import msgspec


class PublicModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model: its config.json (what the formulas read of it) and what its authors and the hub say of it."""

    config: dict[str, Any]
    parameters: float
    """Published; of the language part."""
    active: float | None = None
    """Published, of models with experts; rounded by their authors."""
    kv_bytes: int
    """Of one token in 16 bit, all layers, worked out by hand from the model card: the sum stands beside it."""


def dense(
    layers: int, hidden: int, size: int, heads: int, kv: int, vocabulary: int, context: int, **more: Any
) -> dict[str, Any]:
    """The fields that nearly every decoder has."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": size,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        **more,
    }


NEMOTRON_H_8B: Final = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"

PUBLIC_MODELS: Final[dict[str, PublicModel]] = {
    "Llama-3.1-8B": PublicModel(
        config=dense(32, 4096, 14336, 32, 8, 128256, 131072, model_type="llama"),
        parameters=8_030_261_248,
        kv_bytes=131_072,  # 2 x 32 x 8 x 128 x 2
    ),
    "Llama-3.1-70B": PublicModel(
        config=dense(80, 8192, 28672, 64, 8, 128256, 131072, model_type="llama"),
        parameters=70_553_706_496,
        kv_bytes=327_680,  # 2 x 80 x 8 x 128 x 2
    ),
    "Llama-3.1-405B": PublicModel(
        config=dense(126, 16384, 53248, 128, 8, 128256, 131072, model_type="llama"),
        parameters=405_853_388_800,
        kv_bytes=516_096,  # 2 x 126 x 8 x 128 x 2
    ),
    "Qwen2.5-0.5B": PublicModel(
        config=dense(24, 896, 4864, 14, 2, 151936, 32768, model_type="qwen2", tie_word_embeddings=True,
                     sliding_window=32768, use_sliding_window=False, max_window_layers=24),
        parameters=494_032_768,
        kv_bytes=12_288,  # 2 x 24 x 2 x 64 x 2
    ),
    "Qwen2.5-7B": PublicModel(
        config=dense(28, 3584, 18944, 28, 4, 152064, 131072, model_type="qwen2", sliding_window=131072,
                     use_sliding_window=False, max_window_layers=28),
        parameters=7_615_616_512,
        kv_bytes=57_344,  # 2 x 28 x 4 x 128 x 2
    ),
    "Qwen3-32B": PublicModel(
        config=dense(64, 5120, 25600, 64, 8, 151936, 40960, model_type="qwen3", head_dim=128, sliding_window=None,
                     use_sliding_window=False, max_window_layers=64),
        parameters=32_762_123_264,
        kv_bytes=262_144,  # 2 x 64 x 8 x 128 x 2
    ),
    "Qwen3-235B-A22B": PublicModel(
        config=dense(94, 4096, 12288, 64, 4, 151936, 40960, model_type="qwen3_moe", head_dim=128, num_experts=128,
                     num_experts_per_tok=8, moe_intermediate_size=1536, decoder_sparse_step=1, mlp_only_layers=[]),
        parameters=235_093_634_560,
        active=22e9,
        kv_bytes=192_512,  # 2 x 94 x 4 x 128 x 2
    ),
    "DeepSeek-V3": PublicModel(
        config=dense(61, 7168, 18432, 128, 128, 129280, 163840, model_type="deepseek_v3", n_routed_experts=256,
                     num_experts_per_tok=8, n_shared_experts=1, moe_intermediate_size=2048, first_k_dense_replace=3,
                     moe_layer_freq=1, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
                     v_head_dim=128, num_nextn_predict_layers=1,
                     quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]}),
        parameters=671_026_419_200,
        active=37e9,
        kv_bytes=70_272,  # 61 x (512 + 64) x 2, one latent instead of keys and values
    ),
    "Mixtral-8x7B": PublicModel(
        config=dense(32, 4096, 14336, 32, 8, 32000, 32768, model_type="mixtral", num_local_experts=8,
                     num_experts_per_tok=2, sliding_window=None),
        parameters=46_702_792_704,
        active=12.9e9,
        kv_bytes=131_072,  # 2 x 32 x 8 x 128 x 2
    ),
    "Mistral-7B-v0.1": PublicModel(
        config=dense(32, 4096, 14336, 32, 8, 32000, 32768, model_type="mistral", sliding_window=4096),
        parameters=7_241_732_096,
        kv_bytes=131_072,  # 2 x 32 x 8 x 128 x 2; of no more than 4096 tokens
    ),
    "Gemma-2-9B": PublicModel(
        config=dense(42, 3584, 14336, 16, 8, 256000, 8192, model_type="gemma2", head_dim=256, sliding_window=4096,
                     tie_word_embeddings=True),
        parameters=9_241_705_984,
        kv_bytes=344_064,  # 2 x 42 x 8 x 256 x 2; every second layer of no more than 4096 tokens
    ),
    "Gemma-3-27B": PublicModel(
        config={
            "model_type": "gemma3",
            "torch_dtype": "bfloat16",
            "text_config": {
                "model_type": "gemma3_text", "num_hidden_layers": 62, "hidden_size": 5376, "intermediate_size": 21504,
                "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
            },
        },
        parameters=27_009_346_304,
        kv_bytes=507_904,  # 2 x 62 x 16 x 128 x 2; 52 of the 62 layers of no more than 1024 tokens
    ),
    "gpt-oss-120b": PublicModel(
        config=dense(36, 2880, 2880, 64, 8, 201088, 131072, model_type="gpt_oss", head_dim=64, num_local_experts=128,
                     num_experts_per_tok=4, sliding_window=128,
                     layer_types=["sliding_attention", "full_attention"] * 18,
                     quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}),
        parameters=116_829_156_672,
        active=5.13e9,
        kv_bytes=73_728,  # 2 x 36 x 8 x 64 x 2; every second layer of no more than 128 tokens
    ),
    "Phi-3-mini": PublicModel(
        config=dense(32, 3072, 8192, 32, 32, 32064, 4096, model_type="phi3", sliding_window=2047),
        parameters=3_821_079_552,
        kv_bytes=393_216,  # 2 x 32 x 32 x 96 x 2: every head has its own
    ),
    "Phi-4": PublicModel(
        config=dense(40, 5120, 17920, 40, 10, 100352, 16384, model_type="phi3", sliding_window=None),
        parameters=14_659_507_200,
        kv_bytes=204_800,  # 2 x 40 x 10 x 128 x 2
    ),
    "Falcon-7B": PublicModel(
        config={"model_type": "falcon", "num_hidden_layers": 32, "hidden_size": 4544, "num_attention_heads": 71,
                "multi_query": True, "new_decoder_architecture": False, "parallel_attn": True, "vocab_size": 65024,
                "max_position_embeddings": 2048, "torch_dtype": "bfloat16"},
        parameters=6_921_720_704,
        kv_bytes=8_192,  # 2 x 32 x 1 x 64 x 2: one head for all
    ),
    "Jamba-v0.1": PublicModel(
        config=dense(32, 4096, 14336, 32, 8, 65536, 262144, model_type="jamba", num_experts=16, num_experts_per_tok=2,
                     attn_layer_period=8, attn_layer_offset=4, expert_layer_period=2, expert_layer_offset=1,
                     mamba_d_state=16, mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=256, sliding_window=None),
        parameters=51_570_323_328,
        active=12e9,
        kv_bytes=16_384,  # 2 x 4 x 8 x 128 x 2: 4 of 32 layers attend
    ),
    "Nemotron-H-8B": PublicModel(
        config=dense(52, 4096, 21504, 32, 8, 131072, 8192, model_type="nemotron_h", head_dim=128,
                     hybrid_override_pattern=NEMOTRON_H_8B, mamba_num_heads=128, mamba_head_dim=64, ssm_state_size=128,
                     n_groups=8, conv_kernel=4, mlp_hidden_act="relu2"),
        parameters=8_100_852_736,
        kv_bytes=16_384,  # 2 x 4 x 8 x 128 x 2: 4 of 52 blocks attend
    ),
    "Qwen3-Next-80B-A3B": PublicModel(
        config=dense(48, 2048, 5120, 16, 2, 151936, 262144, model_type="qwen3_next", head_dim=256,
                     full_attention_interval=4, num_experts=512, num_experts_per_tok=10, moe_intermediate_size=512,
                     shared_expert_intermediate_size=512, decoder_sparse_step=1, mlp_only_layers=[],
                     linear_num_key_heads=16, linear_num_value_heads=32, linear_key_head_dim=128,
                     linear_value_head_dim=128, linear_conv_kernel_dim=4),
        parameters=79_674_391_296,
        kv_bytes=24_576,  # 2 x 12 x 2 x 256 x 2: every fourth layer attends
    ),
}  # fmt: skip
