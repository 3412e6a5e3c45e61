"""What is handed over: KV of the shape of Qwen2.5-0.5B, from emulated pods and from models with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tandem_runtime.models.make_model import make_model

from tests.bench.speed.checkpoint import SHAPES

PROMPT_TOKENS: Final = 1024
KV_BYTES_PER_TOKEN: Final = 24 * 2 * 2 * 64 * 2
"""Layers, K and V, KV heads, their size, bfloat16: 12.3 KB."""
KV_ONLY: Final[dict[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
}
"""The same pages, next to no weights: the torch executor's own reads and writes of pages at little computation."""
WHOLE: Final = SHAPES["0.5b"]
COMMON: Final = {
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
COEFFICIENTS: Final = {
    "schema": 1,
    "prefill": {"theta0_s": 0.002, "theta1_s": 0.0, "theta2_s": 0.0},
    "decode": {"phi0_s": 0.002, "phi1_s": 0.0, "phi2_s": 0.0},
    "link": {"setup_s": 0.0, "bytes_per_s": 1e15},
    "kv_bytes_per_token": KV_BYTES_PER_TOKEN,
    "kv_tokens": 1 << 17,
    "max_sequences": 64,
    "load_s": 0.0,
}
"""Prompts take no time to speak of, so nothing of the transfer hides behind them; the link is the machine's own."""


def emulated_flags(folder: Path) -> list[str]:
    """Pages of full size under the real protocol."""
    path = folder / "coefficients.json"
    path.write_text(json.dumps(COEFFICIENTS))
    return ["--executor", "emulated", "--coefficients", str(path), "--kv-scale", "1"]


def kv_only_flags(folder: Path) -> list[str]:
    """Real tensors."""
    return [*_write_model(folder, KV_ONLY), "--dtype", "bfloat16"]


def whole_model_flags(folder: Path) -> list[str]:
    """Random weights of the whole shape, a gigabyte of them."""
    return _write_model(folder, WHOLE)


def _write_model(folder: Path, config: dict[str, Any]) -> list[str]:
    """Random weights and the sample model's tokenizer: nobody reads the text."""
    import torch
    from safetensors.torch import save_file

    model, head = folder / "model", config["hidden_size"] // config["num_attention_heads"]
    make_model(model)
    (model / "model.safetensors").unlink()
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = config["num_key_value_heads"] * head
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}."
        rows = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
        }
        if config["model_type"] == "qwen2":
            shapes |= {f"{at}{name}.bias": size[:1] for name, size in rows.items()}
        rows |= {"self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden)}
        rows |= {"mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
        shapes |= {f"{at}{name}.weight": size for name, size in rows.items()}
    torch.manual_seed(0)
    weights = {name: torch.randn(size, dtype=torch.bfloat16) * 0.02 for name, size in shapes.items()}
    save_file(weights, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps(config | COMMON))
    return ["--model", str(model)]
