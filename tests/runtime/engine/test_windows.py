"""Pages that fell out of a sliding window are given back while the sequence goes on, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.blocks import BlockPool
from tandem_runtime.engine.emulated_executor import EmulatedExecutor
from tandem_runtime.engine.executor import GONE, Plan, SequenceError, first_page
from tandem_runtime.engine.request import Phase
from tandem_runtime.engine.torch_executor import PAGE_TOKENS, TorchExecutor
from tandem_runtime.models.config import ModelConfig, read_config
from tandem_runtime.models.families import FAMILIES
from tandem_runtime.models.make_model import WINDOW_TOKENS, make_model

from tests.runtime.decoding import Stream
from tests.runtime.engine.stepped import MOST_STEPS, Stepped, hand_over
from tests.runtime.server.pods import FAST

PROMPT = [(7 * place) % 400 + 5 for place in range(300)]
MOST_HELD = WINDOW_TOKENS // PAGE_TOKENS + 1
"""The window begins in the middle of a page and ends in the middle of another."""
SAMPLED = Sampling(60, temperature=0.8, seed=3, ignore_eos=True)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides by 256 tokens."""
    folder = tmp_path_factory.mktemp("mistral")
    make_model(folder, family=FAMILIES["mistral"])
    return folder


@pytest.fixture(scope="module")
def make(mistral: Path) -> Iterator[Callable[..., TorchExecutor]]:
    made: list[TorchExecutor] = []

    def start(pages: int = 64, **options: object) -> TorchExecutor:
        page_bytes = 32 * 4 * 2 * 4 * 16 * 4  # tokens, layers, K and V, heads, dimensions, float32
        made.append(TorchExecutor(mistral, device="cpu", kv_memory_bytes=pages * page_bytes, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for executor in made:
        executor.close()


@given(st.integers(0, 500), st.integers(1, 200), st.sampled_from([4, 32]))
def test_no_page_is_given_up_that_any_token_of_the_block_still_sees(position: int, window: int, page: int) -> None:
    first = first_page(position, window, page)
    start = position - position % page
    assert first * page <= max(0, start + 1 - window), "the block's first token sees the page"
    assert start + 1 - window < (first + 1) * page, "one page less would do"
    assert {first_page(start + slot, window, page) for slot in range(page)} == {first}
    assert first_page(position, 0, page) == 0


@pytest.mark.parametrize(("family", "window"), [("mistral", WINDOW_TOKENS), ("qwen2", 0), ("llama", 0)])
def test_only_where_every_layer_slides_pages_can_go(tmp_path: Path, family: str, window: int) -> None:
    make_model(tmp_path, family=FAMILIES[family])
    assert read_config(tmp_path).window_tokens == window


@pytest.mark.parametrize("mode", [{"deterministic": True}, {}, {"dtype": "bfloat16"}])
def test_the_tokens_are_those_of_a_sequence_that_keeps_all_its_pages(
    make: Callable[..., TorchExecutor], mode: dict[str, object]
) -> None:
    executor = make(**mode, max_context_tokens=512)
    pod = Stepped(executor, deterministic=bool(mode.get("deterministic")), step_tokens=96, chunk_tokens=96)
    tokens = pod.ask(PROMPT, SAMPLED)
    assert pod.most_held > MOST_HELD, "the prompt's pages are all reserved at first"
    held = [step.pages for plan in pod.plans[-8:] for step in plan.sequences]
    assert all(len(pages) - pages.count(GONE) <= MOST_HELD for pages in held)
    assert pod.scheduler.counters.passed_pages == first_page(len(PROMPT) + 59, WINDOW_TOKENS, PAGE_TOKENS)
    assert pod.scheduler.blocks.used == 0
    whole = Stream(executor, PROMPT, 0, SAMPLED)
    assert whole.run(60, (96,)) == tokens


@pytest.mark.parametrize("mode", [{"deterministic": True}, {}])
def test_attention_to_the_pages_of_the_window_is_attention_to_all(
    make: Callable[..., TorchExecutor], mode: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = make(**mode, max_context_tokens=512)
    executor.load()
    sampling, chunks = Sampling(40, logprobs=0, ignore_eos=True), (90, 70, 80, 60, 1)
    seen = Stream(executor, PROMPT, 0, sampling)
    tokens = seen.run(40, chunks)
    monkeypatch.setattr(ModelConfig, "window_tokens", 0)  # layers mask by their own
    whole = Stream(executor, PROMPT, 20, sampling)
    assert whole.run(40, chunks) == tokens
    assert whole.logprobs == pytest.approx(seen.logprobs, abs=1e-4)


def test_a_page_that_was_given_back_may_hold_anything(make: Callable[..., TorchExecutor]) -> None:
    for mode in ({"deterministic": True}, {}, {"dtype": "bfloat16"}):
        executor = make(**mode, max_context_tokens=512)
        executor.load()
        assert executor._pool is not None
        tokens = Stream(executor, PROMPT).run(60)
        stream = Stream(executor, PROMPT)
        for _ in range(60):
            step = stream.step(1 << 20)
            first = first_page(step.position, WINDOW_TOKENS, PAGE_TOKENS)
            executor._pool.tensor[step.pages[:first]] = float("nan")
            step = replace(step, pages=[GONE] * first + step.pages[first:])
            result = executor.execute(Plan([step]))
            stream.take(step, result.ids[0], result.logprobs[0])
        assert stream.tokens[len(PROMPT) :] == tokens
        executor._pool.tensor.zero_()


def test_a_page_that_is_still_seen_must_be_there(make: Callable[..., TorchExecutor]) -> None:
    executor = make(max_context_tokens=512)
    executor.load()
    stream = Stream(executor, PROMPT)
    stream.run(1)
    step = stream.step()
    with pytest.raises(SequenceError, match="pages -1 to"):
        executor.execute(Plan([replace(step, pages=[GONE, GONE, *step.pages[2:]])]))


def test_long_answers_share_a_pool_that_could_not_hold_them_without_a_window(
    make: Callable[..., TorchExecutor],
) -> None:
    pod = Stepped(make(18, deterministic=True, max_context_tokens=330), deterministic=True, headroom_tokens=0)
    requests = [pod.add(PROMPT[shift : 60 + shift], Sampling(262, ignore_eos=True)) for shift in range(2)]
    pod.run()
    assert 2 * -(-(60 + 262) // PAGE_TOKENS) > 18 >= 2 * MOST_HELD
    assert pod.scheduler.counters.preempted == 0
    assert [len(pod.ids(request)) for request in requests] == [262, 262]


def test_a_hand_off_brings_all_pages_and_the_receiver_gives_back_what_it_does_not_see(
    make: Callable[..., TorchExecutor],
) -> None:
    prefill, decode = (Stepped(make(deterministic=True, max_context_tokens=512), deterministic=True) for _ in range(2))
    request = hand_over(prefill, decode, PROMPT, SAMPLED)
    assert prefill.most_held == -(-len(PROMPT) // PAGE_TOKENS), "any of them may be asked for again"
    assert len(request.held) <= MOST_HELD
    assert decode.scheduler.leaked_pages() == prefill.scheduler.leaked_pages() == 0
    decode.run()
    assert decode.scheduler.counters.prompt_tokens == 0
    assert decode.ids(request) == prefill.ask(PROMPT, SAMPLED)
    assert prefill.scheduler.blocks.used == decode.scheduler.blocks.used == 0


def emulated(pages: int, window_tokens: int = 64) -> EmulatedExecutor:
    """Its pages know what they hold."""
    values = {name: getattr(FAST, name) for name in FAST.__struct_fields__}
    coefficients = type(FAST)(**values | {"kv_tokens": pages * PAGE_TOKENS})
    return EmulatedExecutor(coefficients, window_tokens=window_tokens, sleep=lambda _: None)


def test_a_known_window_is_enough_to_go_on_from_though_what_lies_before_is_gone() -> None:
    pod = Stepped(emulated(12), free_page_share=0.0)
    first = pod.add([token % 256 for token in PROMPT[:200]], Sampling(40))
    pod.run()
    blocks = pod.scheduler.blocks
    taken = blocks.allocate(blocks.free - 3)
    blocks.release(taken)  # only the last three whole pages are still known
    again = pod.add(first.tokens[:200], Sampling(40), first.tokens[200:230])
    pod.step()
    assert again.cached_tokens == 224
    assert again.pages[:5] == [GONE] * 5
    pod.run()
    assert pod.ids(again) == pod.ids(first)[30:]
    handoff = pod.add(first.tokens[:230], Sampling(1), handoff=True)
    pod.step()
    assert handoff.cached_tokens == 0, "whoever gets its pages needs all of them"


def test_without_a_window_only_an_unbroken_beginning_is_found() -> None:
    pool = BlockPool(4)
    pages = pool.allocate(3)
    for page, name in zip(pages, (b"a", b"b", b"c"), strict=True):
        pool.publish(page, name)
    pool.forget(pages[:1])
    assert pool.match([b"a", b"b", b"c"]) == []
    assert [pool.find(name) for name in (b"a", b"b", b"c")] == [None, *pages[1:]]


def long_prompt(shift: int, tokens: int = 340) -> list[int]:
    return [(7 * place + shift) % 256 for place in range(tokens)]


def test_long_prompts_reserve_what_they_can_hold_at_once() -> None:
    alone = [Stepped(emulated(12)).ask(long_prompt(shift), Sampling(40)) for shift in range(2)]
    pod = Stepped(emulated(12), step_tokens=64, headroom_tokens=0, free_page_share=0.0)
    requests = [pod.add(long_prompt(shift), Sampling(40)) for shift in range(2)]
    while requests[0].phase is not Phase.DECODE:
        pod.step()
    pod.step()
    assert requests[1].phase is Phase.PREFILL, "its eleven pages do not fit beside the four of the other; seven do"
    pod.run()
    assert pod.most_held <= (64 + 64) // PAGE_TOKENS + 3
    assert pod.scheduler.counters.preempted == 0
    assert [pod.ids(request) for request in requests] == alone
    assert pod.scheduler.blocks.used == 0


ARRIVALS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 440), st.integers(0, 12), st.integers(1, 4)), min_size=2, max_size=6
)
"""Which of two texts, prompt tokens, steps until it comes, output tokens."""


@settings(max_examples=25)
@given(
    arrivals=ARRIVALS,
    pages=st.integers(14, 24),
    window=st.sampled_from([2, 33, 64, 96]),
    step_tokens=st.sampled_from([7, 32, 48, 100]),
    deterministic=st.booleans(),
    headroom=st.sampled_from([0, 64]),
)
def test_whoever_is_admitted_finds_every_page_though_prefixes_are_shared(
    arrivals: list[tuple[int, int, int, int]],
    pages: int,
    window: int,
    step_tokens: int,
    deterministic: bool,
    headroom: int,
) -> None:
    options = {"step_tokens": step_tokens, "chunk_tokens": 64, "deterministic": deterministic}
    pod = Stepped(emulated(pages, window), headroom_tokens=headroom, free_page_share=0.0, **options)
    due = sorted((sum(a[2] for a in arrivals[: place + 1]), *a) for place, a in enumerate(arrivals))
    requests = []
    for now in range(MOST_STEPS):
        while due and due[0][0] <= now:
            _, text, tokens, _, length = due.pop(0)
            requests.append((text, tokens, length, pod.add(long_prompt(text, tokens), Sampling(length))))
        before = {r.handle for *_, r in requests if r.phase is Phase.PREFILL}
        went_on = pod.step()
        lost = [r for *_, r in requests if r.handle in before and r.phase is Phase.QUEUED]
        assert not lost or pod.scheduler.counters.preempted, "only whoever decodes asks others to give way"
        if not went_on and not due:
            break
    for text, tokens, length, request in requests:
        assert pod.ids(request) == Stepped(emulated(pages, window)).ask(long_prompt(text, tokens), Sampling(length))
    assert pod.scheduler.blocks.used == 0
