"""The torch executor beside transformers on the same weights: tokens, log probabilities, all variants of the family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tandem_runtime.engine.torch_executor import TorchExecutor

from tests.runtime.decoding import Stream, prompts_of

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("Llama", {}),
    "head wider than hidden / heads": ("Llama", {"head_dim": 32}),
    "one KV head": ("Llama", {"num_key_value_heads": 1}),
    "tied head": ("Llama", {"tie_word_embeddings": True}),
    "biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "linear RoPE": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    "llama3 RoPE": ("Llama", {"rope_parameters": LLAMA3}),
    "Mistral": ("Mistral", {"sliding_window": None}),
    "Qwen2": ("Qwen2", {"use_sliding_window": False}),
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    import transformers

    return transformers


def continue_greedily(model: Any, prompt: list[int], output_tokens: int) -> tuple[list[int], list[float]]:
    ids, logprobs = list(prompt), []
    past = None
    with torch.inference_mode():
        for _ in range(output_tokens):
            fresh = torch.tensor([ids if past is None else ids[-1:]])
            out = model(fresh, past_key_values=past, use_cache=True)
            past = out.past_key_values
            row = torch.log_softmax(out.logits[0, -1], dim=-1)
            ids.append(int(row.argmax()))
            logprobs.append(float(row.max()))
    return ids[len(prompt) :], logprobs


@pytest.fixture(scope="module")
def expected(transformers: Any, sample_model: Path) -> list[tuple[list[int], list[float]]]:
    model = transformers.AutoModelForCausalLM.from_pretrained(sample_model, dtype=torch.float32).eval()
    return [continue_greedily(model, prompt, 32) for prompt in prompts_of(sample_model)]


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("chunks", [(1 << 20,), (32,), (5, 40)])
def test_the_sample_model_speaks_token_for_token_as_in_transformers(
    expected: list[tuple[list[int], list[float]]], sample_model: Path, deterministic: bool, chunks: tuple[int, ...]
) -> None:
    executor = TorchExecutor(sample_model, device="cpu", deterministic=deterministic)
    executor.load()
    for prompt, (tokens, logprobs) in zip(prompts_of(sample_model), expected, strict=True):
        stream = Stream(executor, prompt)
        assert stream.run(32, chunks) == tokens
        assert stream.logprobs == pytest.approx(logprobs, abs=1e-3)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_of_the_family_computes_as_in_transformers(transformers: Any, tmp_path: Path, name: str) -> None:
    family, changes = VARIANTS[name]
    torch.manual_seed(sum(map(ord, name)))
    config = getattr(transformers, f"{family}Config")(**SHAPE | changes)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval().float()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("bias", "norm.weight")):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(tmp_path)
    prompt = [int(token) for token in torch.randint(2, 128, (75,))]
    tokens, logprobs = continue_greedily(model, prompt, 16)
    for deterministic in (True, False):
        executor = TorchExecutor(
            tmp_path, device="cpu", dtype="float32" if not deterministic else "auto", deterministic=deterministic
        )
        executor.load()
        stream = Stream(executor, prompt)
        assert stream.run(16, (32, 20)) == tokens
        assert stream.logprobs == pytest.approx(logprobs, abs=1e-3)


def test_the_tokenizer_and_chat_template_load_in_transformers(transformers: Any, sample_model: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(sample_model)
    text = "Tell me a story about a fox."
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
    )
    assert ids["input_ids"] == prompts_of(sample_model)[0]
