"""What is handed over: KV of the shape of Qwen2.5-0.5B, from emulated pods and from models with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

from tandem_runtime.models.make_model import make_model

PROMPT_TOKENS: Final = 1024
KV_BYTES_PER_TOKEN: Final = 24 * 2 * 2 * 64 * 2
"""Layers, K and V, KV heads, their size, bfloat16: 12.3 KB."""
KV_ONLY: Final = {
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
    from tests.bench.speed.checkpoint import COMMON, _write

    model = folder / "kv-only"
    _write(model, KV_ONLY | COMMON)
    return [*_with_tokenizer(model, folder), "--dtype", "bfloat16"]


def whole_model_flags(folder: Path) -> list[str]:
    """Random weights of the whole shape, from the cache of `bench engine`."""
    from tests.bench.speed.checkpoint import ensure_checkpoint

    source, model = ensure_checkpoint("0.5b"), folder / "whole"
    model.mkdir()
    for file in source.iterdir():
        (model / file.name).symlink_to(file)
    return _with_tokenizer(model, folder)


def _with_tokenizer(model: Path, folder: Path) -> list[str]:
    """Nobody reads the text; but a pod wants a tokenizer."""
    sample = folder / "sample"
    if not sample.exists():
        make_model(sample)
    for file in sample.glob("*token*.json"):
        if not (model / file.name).exists():
            shutil.copy(file, model / file.name)
    return ["--model", str(model)]
