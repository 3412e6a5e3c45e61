"""Every family beside transformers on the same random weights: all logits, in prefill, in decode, through paged KV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tandem_runtime.engine.executor import SequenceStep
from tandem_runtime.engine.kv_pool import KvPool
from tandem_runtime.engine.torch_batch import run_alone, run_together
from tandem_runtime.engine.torch_executor import TorchExecutor, make_layout
from tandem_runtime.models.config import read_config
from tandem_runtime.models.families import FAMILIES
from tandem_runtime.models.llama import Llama
from tandem_runtime.models.loader import INDEX, Checkpoint
from tandem_runtime.models.make_model import make_model

from tests.runtime.decoding import Stream, prompts_of

CPU = torch.device("cpu")
VOCABULARY = 128
PROMPT_TOKENS = 75
DECODED_TOKENS = 6
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
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


def rope(kind: str, **settings: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **settings}}


LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=32)
TUNED_YARN = rope("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=16.0, truncate=False, mscale=0.7)
SLIDING = {"use_sliding_window": True, "sliding_window": 20}
QWEN3 = {"head_dim": 32}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", {}),
    "Llama, head wider than hidden / heads": ("Llama", {"head_dim": 32}),
    "Llama, one KV head": ("Llama", {"num_key_value_heads": 1}),
    "Llama, a KV head for every head": ("Llama", {"num_key_value_heads": 4}),
    "Llama, tied head": ("Llama", {"tie_word_embeddings": True}),
    "Llama, biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "Llama, linear RoPE": ("Llama", rope("linear", factor=4.0)),
    "Llama, llama3 RoPE past the original context": ("Llama", LLAMA3),
    "Llama, yarn past the original context": ("Llama", YARN),
    "Llama, yarn with its own betas and scale": ("Llama", TUNED_YARN | {"head_dim": 32}),
    "Mistral without window": ("Mistral", {"sliding_window": None}),
    "Mistral past its window": ("Mistral", {"sliding_window": 20}),
    "Mistral, window of one page": ("Mistral", {"sliding_window": 32}),
    "Qwen2": ("Qwen2", {"use_sliding_window": False}),
    "Qwen2, tied head": ("Qwen2", {"tie_word_embeddings": True}),
    "Qwen2, second layer past its window": ("Qwen2", SLIDING | {"max_window_layers": 1}),
    "Qwen2, yarn past the original context": ("Qwen2", YARN),
    "Qwen3": ("Qwen3", QWEN3),
    "Qwen3, tied head, biases": ("Qwen3", QWEN3 | {"tie_word_embeddings": True, "attention_bias": True}),
    "Qwen3, first layer past its window": (
        "Qwen3",
        QWEN3 | SLIDING | {"max_window_layers": 0, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "Qwen3, yarn past the original context": ("Qwen3", QWEN3 | YARN),
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    import transformers

    torch.set_num_threads(1)  # these matrices are too small to share
    return transformers


def make_reference(transformers: Any, name: str, directory: Path, **options: Any) -> Any:
    """A model of random weights; norms and biases are random too, or leaving them out would not show."""
    family, changes = VARIANTS[name]
    torch.manual_seed(sum(map(ord, name)))
    config = getattr(transformers, f"{family}Config")(**SHAPE | changes)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval().float()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("bias", "norm.weight")):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(directory, **options)
    return model


class Paged:
    """A model over paged KV, driven as the executor drives it: the pages lie in no order."""

    def __init__(self, directory: Path, deterministic: bool) -> None:
        config = read_config(directory)
        self.model = Llama(config, Checkpoint(directory), torch.float32, CPU)
        self._pool = KvPool(make_layout(config, torch.float32), 8, torch.float32, CPU)
        self._deterministic = deterministic

    def run(self, tokens: list[int], position: int) -> torch.Tensor:
        """Logits after the last of `tokens`, which begin at `position`."""
        step = SequenceStep(tokens, position, [5, 2, 7, 0][: -(-(position + len(tokens)) // 32)], None, 0, 0)
        if self._deterministic:
            return self.model.logits(run_alone(self.model, self._pool, step))[0]
        return self.model.logits(run_together(self.model, self._pool, [step], CPU))[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_family_gives_the_logits_of_transformers(transformers: Any, tmp_path: Path, name: str) -> None:
    reference = make_reference(transformers, name, tmp_path)
    ids = torch.randint(2, VOCABULARY, (PROMPT_TOKENS + DECODED_TOKENS,))
    with torch.inference_mode():
        want = reference(ids[None]).logits[0].float()
        for deterministic in (True, False):
            paged = Paged(tmp_path, deterministic)
            position = 0
            for size in (32, 20, PROMPT_TOKENS - 52, *[1] * DECODED_TOKENS):
                got = paged.run(ids[position : position + size].tolist(), position)
                position += size
                assert torch.allclose(got, want[position - 1], atol=2e-3, rtol=1e-3), f"token {position - 1}"
                assert got.argmax() == want[position - 1].argmax()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_sample_model_of_every_family_speaks_as_in_transformers_past_its_window(
    transformers: Any, tmp_path: Path, name: str
) -> None:
    make_model(tmp_path, family=FAMILIES[name])
    prompt = prompts_of(tmp_path)[4] * 4
    assert len(prompt) > 300
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    executor = TorchExecutor(tmp_path, device="cpu", dtype="float32")
    executor.load()
    said = Stream(executor, prompt).run(8, (100,))
    with torch.inference_mode():
        logits = reference(torch.tensor([prompt + said])).logits[0]
    assert said == logits[len(prompt) - 1 : -1].argmax(dim=-1).tolist()


def test_a_sharded_checkpoint_is_read_through_its_index(transformers: Any, tmp_path: Path) -> None:
    make_reference(transformers, "Qwen3", tmp_path, max_shard_size="60KB")
    assert (tmp_path / INDEX).exists()
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    make_reference(transformers, "Qwen3", tmp_path / "whole")
    ids = list(range(2, 42))
    with torch.inference_mode():
        sharded, whole = Paged(tmp_path, True).run(ids, 0), Paged(tmp_path / "whole", True).run(ids, 0)
    assert torch.equal(sharded, whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_checkpoints_are_read_as_they_are(transformers: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    reference = make_reference(transformers, "Llama", tmp_path / "wide").to(dtype)
    reference.save_pretrained(tmp_path)
    assert read_config(tmp_path).dtype == str(dtype).removeprefix("torch.")
    ids = list(range(2, 42))
    with torch.inference_mode():
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
        want = again(torch.tensor([ids])).logits[0, -1]
        got = Paged(tmp_path, False).run(ids, 0)
    assert torch.allclose(got, want, atol=2e-3, rtol=1e-3)
