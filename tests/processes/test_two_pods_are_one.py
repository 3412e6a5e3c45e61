"""Real weights in real processes: two pods speak as one, and as transformers does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tandem_runtime.contracts.pod_protocol import Delta, Submit
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.models.make_model import make_model
from tandem_runtime.text.tokenizer import load_tokenizer

from tests.processes.pods import pods
from tests.runtime.server.pods import Router, router, submit

MESSAGES = ("Tell me a story about a fox.", "What is under that bridge? " * 12, "Grüß Gott! 🙂")
TOKENS = 24


def transformers_greedy(folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    """The reference: float32, greedy, one prompt at a time."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for prompt in prompts:
        with torch.inference_mode():
            ids = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=TOKENS)
        answers.append(ids[0, len(prompt) :].tolist())
    return answers


async def test_greedy_through_two_pods_is_one_pod_is_transformers_token_for_token(tmp_path: Path) -> None:
    model = tmp_path / "model"
    make_model(model)
    tokenizer = load_tokenizer(model)
    prompts = [tokenizer.apply_chat_template([{"role": "user", "content": text}]) for text in MESSAGES]
    flags = ("--model", str(model), "--deterministic")
    async with pods(tmp_path, *flags) as (prefill, decode), router(decode.ports["internal"]) as client:
        pair = await asyncio.gather(
            *(client.answer(submit(f"two-{n}", ids, TOKENS, prefill.peer)) for n, ids in enumerate(prompts))
        )
        alone = [await client.answer(submit(f"one-{n}", ids, TOKENS)) for n, ids in enumerate(prompts)]
        resumed = [
            await client.answer(submit(f"on-{n}", ids, TOKENS, prefill.peer, emitted_ids=alone[n][0][:7]))
            for n, ids in enumerate(prompts)
        ]
        assert [ids for ids, _, _ in pair] == [ids for ids, _, _ in alone]
        assert [text for _, text, _ in pair] == [text for _, text, _ in alone]
        assert [ids for ids, _, _ in resumed] == [ids[7:] for ids, _, _ in alone]
        assert all(last.usage is not None and last.usage.prefilled_here == 0 for _, _, last in pair + resumed)
        assert all(last.usage is not None and last.usage.kv_bytes_received > 0 for _, _, last in pair + resumed)
        sent = await prefill.metric("tandem_kv_tx_bytes_total")
        assert sent == await decode.metric("tandem_kv_rx_bytes_total") > 0
        for pod in (prefill, decode):
            assert await pod.metric("tandem_engine_used_pages") == 0
    reference = await asyncio.to_thread(transformers_greedy, model, prompts)
    assert [ids for ids, _, _ in pair] == reference


WILD = Sampling(
    TOKENS,
    temperature=1.3,
    top_k=60,
    top_p=0.97,
    min_p=0.001,
    seed=2**62 + 17,
    ignore_eos=True,
    presence_penalty=0.6,
    frequency_penalty=0.4,
    repetition_penalty=1.2,
    logit_bias=((300, 3.0), (12, -100.0)),
    min_tokens=9,
    logprobs=2,
)


async def test_a_draw_with_penalties_is_the_same_in_one_pod_in_two_in_a_batch_and_after_a_resume(
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    make_model(model)
    prompt = load_tokenizer(model).apply_chat_template([{"role": "user", "content": MESSAGES[1]}])

    def wild(name: str, **fields: Any) -> Submit:
        return msgspec.structs.replace(submit(name, prompt, TOKENS, **fields), sampling=WILD, want_logprobs=3)

    flags = ("--model", str(model), "--deterministic")
    async with pods(tmp_path, *flags) as (prefill, decode), router(decode.ports["internal"]) as client:
        alone, _, _ = await client.answer(wild("alone"))
        assert len(alone) == TOKENS
        batch = await asyncio.gather(
            client.answer(wild("two pods", peer=prefill.peer)),
            client.answer(submit("beside", prompt[:40], TOKENS)),
            client.answer(wild("resumed", emitted_ids=alone[:11])),
            client.answer(wild("resumed in two pods", peer=prefill.peer, emitted_ids=alone[:5])),
        )
        assert [ids for ids, _, _ in batch[:1] + batch[2:]] == [alone, alone[11:], alone[5:]]
        told = logprobs_of(client, "alone")
        assert len(told) == TOKENS
        assert all(len(likeliest) == 2 for _, likeliest in told)
        assert logprobs_of(client, "two pods") == told
        assert logprobs_of(client, "resumed in two pods") == told[5:]


def logprobs_of(client: Router, name: str) -> list[tuple[float, list[tuple[int, float]]]]:
    """By token: its log probability, and the likeliest at its place."""
    deltas = [delta for delta in client.of(name) if isinstance(delta, Delta)]
    return [pair for d in deltas for pair in zip(d.logprobs or [], d.alternatives or [], strict=True)]
