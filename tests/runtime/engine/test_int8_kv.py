"""int8 KV in the executor: more pages, and the same tokens whatever surrounds a request in deterministic mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.executor import Plan, SequenceStep
from tandem_runtime.engine.torch_executor import TorchExecutor

PROMPT = [(11 * place) % 400 + 5 for place in range(90)]


def load(model: Path, **options: Any) -> TorchExecutor:
    executor = TorchExecutor(
        model, device="cpu", max_context_tokens=192, kv_memory_bytes=1 << 20, kv_dtype="int8", **options
    )
    executor.load()
    return executor


def generate(executor: TorchExecutor, chunk: int, first_page: int, tokens: list[int], until: int, **more: Any) -> None:
    """Appends greedy tokens; what is in `tokens` goes in in pieces of `chunk`, but what `position` says is there."""
    position, pages = more.pop("position", 0), list(range(first_page, first_page + 5))
    while len(tokens) < until:
        end = min(position + chunk, len(tokens))
        sampling = Sampling(max_tokens=until, logprobs=0) if end == len(tokens) else None
        step = SequenceStep(tokens[position:end], position, pages, sampling, max(0, end - len(PROMPT)), 0)
        position, result = end, executor.execute(Plan([step, *more.get("beside", [])]))
        if result.ids[0] is not None:
            tokens.append(result.ids[0])


def test_in_deterministic_mode_neither_pieces_nor_neighbours_nor_the_page_change_a_token(sample_model: Path) -> None:
    executor = load(sample_model, deterministic=True)
    want = list(PROMPT)
    generate(executor, len(PROMPT), 0, want, 130)
    neighbour = SequenceStep(PROMPT[:40], 0, [8, 9], None, 0, 0)
    for chunk, beside in ((7, []), (32, [neighbour]), (50, [neighbour])):
        got = list(PROMPT)
        generate(executor, chunk, 3, got, 130, beside=beside)
        assert got == want


@pytest.mark.parametrize("mode", [{"deterministic": True}, {"dtype": "bfloat16"}])
def test_pages_moved_to_another_pod_go_on_with_the_same_tokens(sample_model: Path, mode: dict[str, Any]) -> None:
    here, there = load(sample_model, **mode), load(sample_model, **mode)
    want = list(PROMPT)
    generate(here, 64, 0, want, 130)
    for first, end in ((0, 2), (2, 4)):
        there.write_pages([6, 7, 8, 9], first, end, here.read_pages([0, 1, 2, 3], first, end))
    got = want[:110]
    generate(there, 1, 6, got, 130, position=109)
    assert got == want


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_same_memory_gives_more_pages(sample_model: Path, dtype: str) -> None:
    plain = TorchExecutor(sample_model, device="cpu", max_context_tokens=192, kv_memory_bytes=1 << 20, dtype=dtype)
    more, fewer = load(sample_model, dtype=dtype).capacity, plain.load()
    assert more.layout.dtype == "int8"
    itemsize = {"bfloat16": 2, "float32": 4}[dtype]
    assert more.pages == (1 << 20) // more.layout.page_bytes >= int(fewer.pages * itemsize * 16 / 20)
