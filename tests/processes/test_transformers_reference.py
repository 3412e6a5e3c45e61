"""The torch executor beside transformers on the same weights: tokens and log probabilities of the sample model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tandem_runtime.engine.torch_executor import TorchExecutor

from tests.runtime.decoding import Stream, prompts_of


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


def test_the_tokenizer_and_chat_template_load_in_transformers(transformers: Any, sample_model: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(sample_model)
    text = "Tell me a story about a fox."
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
    )
    assert ids["input_ids"] == prompts_of(sample_model)[0]
