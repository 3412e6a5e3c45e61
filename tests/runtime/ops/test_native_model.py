"""A whole model on the compiled kernels beside the torch reference on the same weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.executor import Plan, SequenceStep
from tandem_runtime.engine.torch_executor import TorchExecutor
from tandem_runtime.ops.native import load_native

from tests.runtime.ops.emulation import WIDE, emulated

BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 200,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "dtype": "bfloat16",
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 1,
}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 24}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 40}
FAMILIES = {"qwen2": QWEN2, "qwen3": QWEN3, "mistral": MISTRAL}
PROMPT = [(7 * index) % 190 + 3 for index in range(75)]
LOGIT_TOLERANCE = 0.02
"""Of the largest logit: the reference computes in float32, the kernels round keys and values to bfloat16."""


def write_model(folder: Path, changes: dict[str, Any]) -> Path:
    """Random bfloat16 weights of a family, large enough to make distinct logits."""
    config = BASE | changes
    numbers = torch.Generator().manual_seed(3)
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    dim = config.get("head_dim", hidden // config["num_attention_heads"])
    query, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    for index in range(config["num_hidden_layers"]):
        attention, mlp = f"model.layers.{index}.self_attn.", f"model.layers.{index}.mlp."
        for part, out in (("q", query), ("k", kv), ("v", kv)):
            shapes[f"{attention}{part}_proj.weight"] = (out, hidden)
            if config["model_type"] == "qwen2":
                shapes[f"{attention}{part}_proj.bias"] = (out,)
            if config["model_type"] == "qwen3" and part != "v":
                shapes[f"{attention}{part}_norm.weight"] = (dim,)
        shapes[f"{attention}o_proj.weight"] = (hidden, query)
        shapes |= {f"{mlp}{part}_proj.weight": (inner, hidden) for part in ("gate", "up")}
        shapes[f"{mlp}down_proj.weight"] = (hidden, inner)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{index}.{norm}.weight"] = (hidden,)
    tensors = {
        name: (torch.randn(shape, generator=numbers) * (0.15 if len(shape) > 1 else 0.3) + ("norm" in name)).bfloat16()
        for name, shape in shapes.items()
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(folder: Path, **options: Any) -> TorchExecutor:
    executor = TorchExecutor(folder, device="cpu", max_context_tokens=256, kv_memory_bytes=1 << 24, **options)
    executor.load()
    return executor


def generate(executor: TorchExecutor, prompt: list[int], count: int, chunk: int, first_page: int = 0) -> list[int]:
    """Greedy tokens; the prompt goes in in pieces of `chunk`."""
    sampling, tokens, position = Sampling(max_tokens=count), list(prompt), 0
    pages = [first_page + ordinal for ordinal in range((len(prompt) + count) // 32 + 1)]
    while len(tokens) < len(prompt) + count:
        end = min(position + chunk, len(tokens))
        wanted = sampling if end == len(tokens) else None
        step = SequenceStep(tokens[position:end], position, pages, wanted, len(tokens) - len(prompt), 0)
        token, position = executor.execute(Plan([step])).ids[0], end
        if token is not None:
            tokens.append(token)
    return tokens[len(prompt) :]


@pytest.fixture(autouse=True, params=("best", *(f"{name}, emulated" for name in WIDE)))
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """The best kernels of this CPU, and those that it may lack."""
    name, _, how = request.param.partition(", ")
    with emulated(name) if how else nullcontext():
        found = load_native(1)
        if how and (found is None or found.instruction_set != name):
            pytest.skip(f"unverified here: {request.param}: no g++, or a CPU without AVX2")
        yield


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", FAMILIES[request.param])


def test_every_family_gives_the_tokens_of_the_reference_however_its_prompt_is_cut(folder: Path) -> None:
    want = generate(load(folder, dtype="float32"), PROMPT, 12, len(PROMPT))
    executor = load(folder)
    for chunk in (len(PROMPT), 7, 32):
        assert generate(executor, PROMPT, 12, chunk) == want


def test_sequences_of_one_step_do_not_see_each_other(tmp_path: Path) -> None:
    executor = load(write_model(tmp_path / "model", QWEN2))
    prompts = [PROMPT[start : start + 9 + 11 * start] for start in range(5)]
    alone = [generate(executor, prompt, 1, 256, 20 + 4 * index)[0] for index, prompt in enumerate(prompts)]
    steps = [
        SequenceStep(prompt, 0, list(range(4 * index, 4 * index + 4)), Sampling(max_tokens=1), 0, 0)
        for index, prompt in enumerate(prompts)
    ]
    assert executor.execute(Plan(steps)).ids == alone


def test_a_page_with_rubbish_beyond_its_last_token_changes_nothing(tmp_path: Path) -> None:
    executor = load(write_model(tmp_path / "model", QWEN2))
    want = generate(executor, PROMPT, 6, 20)
    assert executor._pool is not None
    executor._pool.tensor.fill_(float("nan"))
    assert generate(executor, PROMPT, 6, 20) == want


def logits_of(executor: TorchExecutor, prompt: list[int]) -> torch.Tensor:
    """Of the last token, by way of the probabilities of the likeliest 20."""
    sampling = Sampling(max_tokens=1, logprobs=20)
    step = SequenceStep(prompt, 0, list(range(len(prompt) // 32 + 1)), sampling, 0, 0)
    likeliest = executor.execute(Plan([step])).alternatives[0]
    row = torch.zeros(BASE["vocab_size"])
    for token, logprob in likeliest:
        row[token] = logprob
    return row


def test_log_probabilities_are_those_of_the_reference(folder: Path) -> None:
    want, got = logits_of(load(folder, dtype="float32"), PROMPT), logits_of(load(folder), PROMPT)
    both = (want != 0) & (got != 0)
    assert both.sum() >= 18
    assert float((want - got)[both].abs().max()) < LOGIT_TOLERANCE * float(want.abs().max())


def test_int8_stays_near_bfloat16(folder: Path) -> None:
    want, got = logits_of(load(folder), PROMPT), logits_of(load(folder, int8=True), PROMPT)
    both = (want != 0) & (got != 0)
    assert both.sum() >= 12
    assert float((want - got)[both].abs().max()) < 0.1 * float(want.abs().max())


def test_int8_keys_and_values_are_those_of_the_reference_in_every_page(folder: Path) -> None:
    pages = []
    for options in ({"dtype": "float32"}, {}):
        executor = load(folder, kv_dtype="int8", **options)
        generate(executor, PROMPT, 2, 20)
        assert executor._pool is not None
        views = [view for layer in range(2) for view in executor._pool.layer(layer)]
        pages.append(torch.stack([view.read(torch.tensor([[0, 1]])).float() for view in views]))
    want, got = pages
    largest = want.abs().amax(dim=-1, keepdim=True)
    assert float(largest.min()) > 0
    away = ((got - want) / largest).abs()
    assert float(away[:2].max()) < 2 / 127, "one step, and what sums differ by, activations in bfloat16 included"
    assert float(away.max()) < 6 / 127, "behind a layer of such activations"


def test_int8_keys_and_values_give_the_log_probabilities_of_the_reference(folder: Path) -> None:
    want = logits_of(load(folder, dtype="float32", kv_dtype="int8"), PROMPT)
    got = logits_of(load(folder, kv_dtype="int8"), PROMPT)
    both = (want != 0) & (got != 0)
    assert both.sum() >= 18
    assert float((want - got)[both].abs().max()) < LOGIT_TOLERANCE * float(want.abs().max())


def test_with_int8_keys_and_values_tokens_do_not_depend_on_how_a_prompt_is_cut_nor_on_rubbish(folder: Path) -> None:
    executor = load(folder, kv_dtype="int8")
    want = generate(executor, PROMPT, 12, len(PROMPT))
    assert executor._pool is not None
    for chunk in (7, 32):
        executor._pool.tensor.fill_(-1)  # scales of it are no numbers
        assert generate(executor, PROMPT, 12, chunk) == want


def test_a_tied_head_serves_as_the_embedding_without_a_second_copy(tmp_path: Path) -> None:
    executor = load(write_model(tmp_path / "model", QWEN2))
    assert executor._model is not None
    assert executor._model.embedding.numel() == 0
