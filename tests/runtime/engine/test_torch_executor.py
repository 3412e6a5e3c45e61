"""The torch executor on the sample model: chunks, batches, pages of another pod, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.executor import Plan, SequenceError, SequenceStep
from tandem_runtime.engine.torch_executor import TorchExecutor
from tandem_runtime.models.errors import ModelError

from tests.runtime.decoding import GREEDY, Stream, prompts_of, run_batch

CHUNKINGS = [(1 << 20,), (32,), (7,), (33, 1, 64)]


@pytest.fixture(scope="module")
def make_executor(sample_model: Path) -> Iterator[Callable[..., TorchExecutor]]:
    made: list[TorchExecutor] = []

    def make(**options: object) -> TorchExecutor:
        executor = TorchExecutor(sample_model, device="cpu", **options)  # type: ignore[arg-type]
        executor.load()
        made.append(executor)
        return executor

    yield make
    for executor in made:
        executor.close()


@pytest.fixture(scope="module")
def deterministic(make_executor: Callable[..., TorchExecutor]) -> TorchExecutor:
    return make_executor(deterministic=True)


@pytest.fixture(scope="module")
def fast(make_executor: Callable[..., TorchExecutor]) -> TorchExecutor:
    return make_executor()


@pytest.fixture(scope="module")
def prompts(sample_model: Path) -> list[list[int]]:
    return prompts_of(sample_model)


def bytes_of(executor: TorchExecutor, stream: Stream) -> list[bytes]:
    pages = stream.pages(stream.computed)
    return [bytes(view) for view in executor.read_pages(pages, 0, executor.capacity.layout.layers)]


@pytest.mark.parametrize("chunks", CHUNKINGS)
def test_any_chunking_gives_the_same_bits(
    deterministic: TorchExecutor, prompts: list[list[int]], chunks: tuple[int, ...]
) -> None:
    whole, pieces = Stream(deterministic, prompts[4], 0), Stream(deterministic, prompts[4], 100)
    assert whole.run(8) == pieces.run(8, chunks)
    assert bytes_of(deterministic, whole) == bytes_of(deterministic, pieces)


def test_a_resumed_stream_has_the_bits_of_the_one_that_was_cut(
    deterministic: TorchExecutor, prompts: list[list[int]]
) -> None:
    whole = Stream(deterministic, prompts[0], 0)
    tokens = whole.run(40)
    resumed = Stream(deterministic, prompts[0] + tokens[:25], 100)
    assert resumed.run(15) == tokens[25:]
    assert bytes_of(deterministic, whole) == bytes_of(deterministic, resumed)


def test_other_sequences_in_the_batch_change_no_bit(deterministic: TorchExecutor, prompts: list[list[int]]) -> None:
    alone = [Stream(deterministic, prompt, 0).run(12) for prompt in prompts]
    streams = [Stream(deterministic, prompt, 100 * number) for number, prompt in enumerate(prompts, start=1)]
    assert run_batch(deterministic, streams, 12, chunk=48) == alone


def test_batches_of_mixed_phases_give_the_tokens_of_sequences_alone(
    deterministic: TorchExecutor, fast: TorchExecutor, prompts: list[list[int]]
) -> None:
    alone = [Stream(deterministic, prompt).run(24) for prompt in prompts]
    streams = [Stream(fast, prompt, 100 * number) for number, prompt in enumerate(prompts)]
    assert run_batch(fast, streams, 24, chunk=20) == alone


def test_most_answers_last_and_vary(deterministic: TorchExecutor, prompts: list[list[int]]) -> None:
    ends = next(iter(deterministic.capacity.eos_token_ids))
    answers = [Stream(deterministic, prompt).run(24) for prompt in prompts]
    assert all(ends not in answer[:5] for answer in answers)
    assert all(len(set(answer)) > 12 for answer in answers)
    assert len({tuple(answer) for answer in answers}) == len(answers)


@pytest.mark.parametrize("layers_per_frame", [1, 3, 4])
def test_pages_of_another_executor_carry_the_whole_prompt(
    make_executor: Callable[..., TorchExecutor], prompts: list[list[int]], layers_per_frame: int
) -> None:
    prefill, decode = make_executor(deterministic=True), make_executor(deterministic=True)
    want = Stream(prefill, prompts[4], 0).run(20)
    sender = Stream(prefill, prompts[4], 50)
    first = sender.run(1)
    receiver = Stream(decode, prompts[4], 10, computed=len(prompts[4]))
    for layer in range(0, 4, layers_per_frame):
        end = min(layer + layers_per_frame, 4)
        payloads = prefill.read_pages(sender.pages(sender.computed), layer, end)
        decode.write_pages(receiver.pages(receiver.computed), layer, end, payloads)
    receiver.tokens += first
    assert receiver.run(20) == want


def test_a_wrong_page_changes_the_answer(fast: TorchExecutor, prompts: list[list[int]]) -> None:
    want = Stream(fast, prompts[4]).run(24)
    for number in range(len(prompts[4]) // 32):
        stream = Stream(fast, prompts[4])
        stream.run(1)
        page = stream.pages()[number]
        other = [memoryview(bytes(fast.read_pages([page ^ 1], 0, 4)[0]))]
        fast.write_pages([page], 0, 4, other)
        assert stream.run(24) != want


def test_a_page_that_held_garbage_does_no_harm(fast: TorchExecutor, prompts: list[list[int]]) -> None:
    want = Stream(fast, prompts[0], 0).run(40)
    garbage = memoryview(b"\xff" * fast.capacity.layout.page_bytes)
    fast.write_pages([200, 201], 0, 4, [garbage, garbage])
    assert Stream(fast, prompts[0], 200).run(40) == want


def test_sampling_depends_on_seed_and_index_not_on_the_batch(fast: TorchExecutor, prompts: list[list[int]]) -> None:
    samplings = [Sampling(max_tokens=9, temperature=1.0, top_p=0.9, seed=seed) for seed in (1, 1, 2)]
    alone = [Stream(fast, prompts[0], 0, sampling).run(16) for sampling in samplings]
    streams = [Stream(fast, prompts[0], 10 * number, sampling) for number, sampling in enumerate(samplings)]
    assert run_batch(fast, streams, 16, chunk=64) == alone
    assert alone[0] == alone[1] != alone[2]


def test_a_page_on_the_wire_is_layers_kv_heads_tokens_dims(make_executor: Callable[..., TorchExecutor]) -> None:
    executor = make_executor()
    layout = executor.capacity.layout
    shape = (layout.layers, 2, layout.kv_heads, layout.page_tokens, layout.head_dim)
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)
    assert numbers.nbytes == layout.page_bytes
    executor.write_pages([3], 0, layout.layers, [memoryview(numbers.numpy()).cast("B")])
    stream = Stream(executor, [1], 3 ^ 1)
    assert stream.pages() == [3]
    executor.execute(Plan([SequenceStep([5], 1, [3], None, 0, 0)]))
    after = torch.frombuffer(bytearray(executor.read_pages([3], 0, layout.layers)[0]), dtype=torch.float32).view(shape)
    changed = (after != numbers).any(dim=-1)
    assert changed[:, :, :, 1].all()
    assert not changed[:, :, :, [0, *range(2, 32)]].any()


def test_bfloat16_halves_the_pages_and_still_speaks(
    make_executor: Callable[..., TorchExecutor], fast: TorchExecutor, prompts: list[list[int]]
) -> None:
    executor = make_executor(dtype="bfloat16")
    half, whole = executor.capacity, fast.capacity
    assert half.layout.page_bytes * 2 == whole.layout.page_bytes
    assert half.compat_hash != whole.compat_hash
    assert Stream(executor, prompts[0]).run(6) == Stream(fast, prompts[0]).run(6)


def test_pods_of_equal_models_agree_on_the_hash_and_others_do_not(
    deterministic: TorchExecutor, fast: TorchExecutor, sample_model: Path, tmp_path: Path
) -> None:
    assert deterministic.capacity.compat_hash == fast.capacity.compat_hash
    other = Path(shutil.copytree(sample_model, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, other / "model.safetensors")
    assert TorchExecutor(other, device="cpu").load().compat_hash != fast.capacity.compat_hash


def test_memory_for_pages_is_taken_as_asked(make_executor: Callable[..., TorchExecutor]) -> None:
    page = make_executor().capacity.layout.page_bytes
    assert make_executor(kv_memory_bytes=100 * page, max_context_tokens=64).capacity.pages == 100
    assert make_executor(max_context_tokens=64, max_sequences=3).capacity.pages == 6


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_context_tokens": 4096}, "context is 2048 tokens, 4096 were asked for"),
        ({"kv_memory_bytes": 1 << 20}, "one context of 2048 tokens needs 4194304 bytes of KV; 1048576 are set aside"),
        ({"deterministic": True, "dtype": "bfloat16"}, "deterministic mode computes in float32; bfloat16"),
    ],
)
def test_options_that_cannot_be_met_are_refused(sample_model: Path, options: dict[str, int], named: str) -> None:
    with pytest.raises(ModelError) as caught:
        TorchExecutor(sample_model, device="cpu", **options).load()  # type: ignore[arg-type]
    assert named in str(caught.value)


def test_an_unknown_dtype_in_the_config_is_refused(sample_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(sample_model, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"torch_dtype": "float8_e4m3fn"}))
    with pytest.raises(ModelError, match="dtype 'float8_e4m3fn'; supported are bfloat16"):
        TorchExecutor(model, device="cpu").load()


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (SequenceStep([], 0, [0], GREEDY, 0, 0), "tokens 0 to 0"),
        (SequenceStep([1, 2], 2047, list(range(65)), GREEDY, 0, 0), "the context is 2048 tokens"),
        (SequenceStep([1], 32, [0], GREEDY, 0, 0), "1 pages of 32 tokens do not hold 33 tokens"),
        (SequenceStep([1], 0, [1 << 30], GREEDY, 0, 0), f"pages {1 << 30}"),
        (SequenceStep([99999], 0, [0], GREEDY, 0, 0), "token id 99999; the model's vocabulary has"),
    ],
)
def test_one_impossible_sequence_is_named(fast: TorchExecutor, step: SequenceStep, named: str) -> None:
    with pytest.raises(SequenceError, match=named) as caught:
        fast.execute(Plan([SequenceStep([1], 0, [0], GREEDY, 0, 0), step]))
    assert caught.value.index == 1


def test_payloads_and_pages_that_do_not_fit_are_refused(fast: TorchExecutor) -> None:
    with pytest.raises(ValueError, match="payload of 5 bytes for 4 layers of page 0; it takes 65536"):
        fast.write_pages([0], 0, 4, [memoryview(b"12345")])
    with pytest.raises(ValueError, match="the model has 4"):
        fast.read_pages([0], 0, 5)
    with pytest.raises(ValueError, match="page -1; there are"):
        fast.read_pages([-1], 0, 4)


def test_a_closed_executor_says_so(make_executor: Callable[..., TorchExecutor]) -> None:
    executor = make_executor()
    executor.close()
    with pytest.raises(ModelError, match="was closed"):
        executor.execute(Plan())
