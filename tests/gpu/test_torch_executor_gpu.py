"""The torch executor on a GPU: the tokens of the CPU's float32 reference, and pages that cross both ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.torch_executor import TorchExecutor

from tests.runtime.decoding import Stream, run_batch

pytestmark = pytest.mark.gpu

PROMPTS = [
    [972, *((start + 37 * step) % 970 for step in range(length)), 976] for start, length in [(5, 9), (80, 64), (7, 300)]
]
"""bos, tokens from all over the vocabulary, the marker of an answer: no tokenizer is needed here."""
MakeExecutor = Callable[..., TorchExecutor]


@pytest.fixture(scope="module")
def want(make_executor: MakeExecutor) -> list[list[int]]:
    """What the CPU answers."""
    cpu = make_executor("cpu")
    return [Stream(cpu, prompt).run(48) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def gpu(make_executor: MakeExecutor) -> TorchExecutor:
    return make_executor("cuda")


@pytest.mark.parametrize("chunks", [(1 << 20,), (32,), (7, 40)])
def test_a_gpu_speaks_token_for_token_as_the_cpu(
    gpu: TorchExecutor, want: list[list[int]], chunks: tuple[int, ...]
) -> None:
    assert [Stream(gpu, prompt).run(48, chunks) for prompt in PROMPTS] == want


def test_any_chunking_gives_the_same_bits(gpu: TorchExecutor) -> None:
    whole, pieces = Stream(gpu, PROMPTS[2], 0), Stream(gpu, PROMPTS[2], 100)
    assert whole.run(16) == pieces.run(16, (7, 40))
    views = [gpu.read_pages(stream.pages(stream.computed), 0, 4) for stream in (whole, pieces)]
    assert [bytes(view) for view in views[0]] == [bytes(view) for view in views[1]]


def test_batches_of_mixed_phases_give_the_tokens_of_the_cpu(make_executor: MakeExecutor, want: list[list[int]]) -> None:
    fast = make_executor("cuda", deterministic=False)
    streams = [Stream(fast, prompt, 100 * number) for number, prompt in enumerate(PROMPTS)]
    assert run_batch(fast, streams, 48, chunk=50) == want


@pytest.mark.parametrize(("source", "target"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_pages_cross_between_devices(
    make_executor: MakeExecutor, want: list[list[int]], source: str, target: str
) -> None:
    prefill, decode = make_executor(source), make_executor(target)
    assert prefill.capacity.compat_hash == decode.capacity.compat_hash
    for prompt, tokens in zip(PROMPTS, want, strict=True):
        sender, receiver = Stream(prefill, prompt, 20), Stream(decode, prompt, 60, computed=len(prompt))
        receiver.tokens += sender.run(1)
        for layer in (0, 2):
            payloads = prefill.read_pages(sender.pages(sender.computed), layer, layer + 2)
            decode.write_pages(receiver.pages(receiver.computed), layer, layer + 2, payloads)
        assert receiver.run(48) == tokens


def test_a_page_comes_back_from_the_gpu_as_it_went(gpu: TorchExecutor) -> None:
    size = gpu.capacity.layout.page_bytes
    pages = [memoryview(bytes(range(256)) * (size // 256)), memoryview(bytes(size))]
    gpu.write_pages([9, 4], 0, 4, pages)
    assert [bytes(view) for view in gpu.read_pages([9, 4], 0, 4)] == [bytes(page) for page in pages]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_starts_as_the_reference_does(
    make_executor: MakeExecutor, want: list[list[int]], dtype: str
) -> None:
    half = make_executor("cuda", deterministic=False, dtype=dtype)
    assert half.capacity.layout.page_bytes == 32768
    agreeing = sum(Stream(half, prompt).run(4) == tokens[:4] for prompt, tokens in zip(PROMPTS, want, strict=True))
    assert agreeing >= 2


def test_sampling_on_a_gpu_draws_what_the_cpu_draws(make_executor: MakeExecutor, gpu: TorchExecutor) -> None:
    sampling = Sampling(max_tokens=24, temperature=0.8, top_p=0.95, seed=11)
    cpu = make_executor("cpu")
    for prompt in PROMPTS:
        assert Stream(gpu, prompt, 0, sampling).run(24) == Stream(cpu, prompt, 0, sampling).run(24)
