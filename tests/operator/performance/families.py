"""Configs of families whose layers are not all alike, with parameter counts as the transformers library has them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tests.operator.performance.public_models import dense

WINDOW, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"


class Family(msgspec.Struct, frozen=True):
    """config.json, parameters, KV bytes per token in 16 bit, bytes of state per sequence."""

    config: dict[str, Any]
    parameters: int
    kv_bytes: int
    state_bytes: int = 0


def gemma4(layers: int, hidden: int, size: int, heads: int, kv: int, period: int, **more: Any) -> dict[str, Any]:
    types = [FULL if (i + 1) % period == 0 else WINDOW for i in range(layers)]
    return dense(layers, hidden, size, heads, kv, 262144, 131072, model_type="gemma4_text", layer_types=types,
                 tie_word_embeddings=True, head_dim=256, global_head_dim=512, **more)  # fmt: skip


FAMILIES: Final[dict[str, Family]] = {
    # 10 full layers of 4 heads of 512, which are both key and value; 50 of 16 heads of 256
    "Gemma 4, dense": Family(
        gemma4(60, 5376, 21504, 32, 16, 6, attention_k_eq_v=True, num_global_key_value_heads=4, sliding_window=1024),
        30_697_345_280, 2 * 2 * (10 * 4 * 512 + 50 * 16 * 256),
    ),
    "Gemma 4, experts beside a dense part": Family(
        gemma4(30, 2816, 2112, 16, 8, 6, attention_k_eq_v=True, num_global_key_value_heads=2, sliding_window=1024,
               enable_moe_block=True, num_experts=128, top_k_experts=8, moe_intermediate_size=704),
        25_233_141_760, 2 * 2 * (5 * 2 * 512 + 25 * 8 * 256),
    ),
    # the last 20 of 35 layers use the keys of others
    "Gemma 4, shared keys and tables per layer": Family(
        gemma4(35, 1536, 6144, 8, 1, 5, num_kv_shared_layers=20, use_double_wide_mlp=True, sliding_window=512,
               hidden_size_per_layer_input=256, vocab_size_per_layer_input=262144),
        4_628_569_344, 2 * 2 * (3 * 512 + 12 * 256),
    ),
    "Granite 4 hybrid": Family(
        dense(40, 4096, 768, 32, 8, 100352, 131072, model_type="granitemoehybrid", tie_word_embeddings=True,
              layer_types=(["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4, mamba_d_state=128, mamba_d_conv=4,
              mamba_n_heads=128, mamba_d_head=64, mamba_n_groups=1, num_local_experts=72, num_experts_per_tok=10,
              shared_intermediate_size=1536),
        32_207_337_984, 2 * 4 * 8 * 128 * 2, 36 * (128 * 64 * 128 * 4 + (8192 + 256) * 3 * 2),
    ),
    "Bamba": Family(
        dense(32, 4096, 14336, 32, 8, 128000, 262144, model_type="bamba", attn_layer_indices=[9, 18, 27],
              mamba_d_state=256, mamba_d_conv=4, mamba_n_heads=128, mamba_d_head="auto", mamba_n_groups=1),
        9_808_584_064, 2 * 3 * 8 * 128 * 2, 29 * (128 * 64 * 256 * 4 + (8192 + 512) * 3 * 2),
    ),
    "Falcon H1: attention and state in each layer": Family(
        dense(32, 4096, 14336, 32, 8, 128000, 8192, model_type="falcon_h1", mamba_d_state=256, mamba_d_conv=4,
              mamba_n_heads=128, mamba_d_head=32, mamba_d_ssm=4096, mamba_n_groups=1),
        9_723_412_480, 2 * 32 * 8 * 128 * 2, 32 * (4096 * 256 * 4 + (4096 + 512) * 3 * 2),
    ),
    "Kimi Linear": Family(
        dense(27, 2304, 9216, 32, 32, 163840, 1048576, model_type="kimi_linear", kv_lora_rank=512, qk_rope_head_dim=64,
              qk_nope_head_dim=128, v_head_dim=128, num_experts=256, num_experts_per_token=8, num_shared_experts=1,
              moe_intermediate_size=1024, first_k_dense_replace=1, moe_layer_freq=1,
              linear_attn_config={"full_attn_layers": [5, 9, 13, 17, 21, 25], "num_heads": 32, "head_dim": 128,
                                  "short_conv_kernel_size": 4}),
        49_133_074_464, 6 * 576 * 2, 21 * (32 * 128 * 128 * 4 + 3 * 4096 * 3 * 2),
    ),
    "DeepSeek V3.2: 8-bit keys of 128 that find tokens": Family(
        dense(61, 7168, 18432, 128, 128, 129280, 163840, model_type="deepseek_v32", n_routed_experts=256,
              num_experts_per_tok=8, n_shared_experts=1, moe_intermediate_size=2048, first_k_dense_replace=3,
              moe_layer_freq=1, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
              v_head_dim=128, index_head_dim=128, index_n_heads=64, index_topk=2048),
        671_877_929_216, 61 * (576 * 2 + 128),
    ),
    "Nemotron, blocks with experts": Family(
        dense(4, 4096, 21504, 32, 8, 131072, 4096, model_type="nemotron_h", hybrid_override_pattern="ME*-",
              head_dim=128, ssm_state_size=128, conv_kernel=4, mamba_num_heads=128, mamba_head_dim=64, n_groups=8,
              n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=7688, n_shared_experts=1,
              moe_shared_expert_intermediate_size=7688),
        1_968_355_712, 2 * 8 * 128 * 2, 128 * 64 * 128 * 4 + (8192 + 2048) * 3 * 2,
    ),
    "MiniMax: every second layer decays": Family(
        dense(32, 4096, 14336, 32, 8, 32000, 131072, model_type="minimax", attn_type_list=[1, 0] * 16,
              num_local_experts=8, num_experts_per_tok=2),
        47_373_946_880, 2 * 16 * 8 * 128 * 2, 16 * 32 * 128 * 128 * 4,
    ),
    "Qwen 3.5, experts": Family(
        dense(40, 2048, 5120, 16, 2, 248320, 32768, model_type="qwen3_5_moe_text", head_dim=256,
              layer_types=([LINEAR] * 3 + [FULL]) * 10, linear_num_key_heads=16, linear_num_value_heads=32,
              linear_key_head_dim=128, linear_value_head_dim=128, linear_conv_kernel_dim=4, num_experts=256,
              num_experts_per_tok=8, moe_intermediate_size=512, shared_expert_intermediate_size=512),
        34_660_610_688, 2 * 10 * 2 * 256 * 2, 30 * (32 * 128 * 128 * 4 + 8192 * 3 * 2),
    ),
}  # fmt: skip
