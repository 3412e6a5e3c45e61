"""Speculation changes how many forwards an answer takes, and nothing else about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.sampling import MOST_BIAS, Sampling
from tandem_runtime.engine.request import Request
from tandem_runtime.engine.sampling_law import choose

from tests.runtime.engine.parrot import CONTEXT, END, VOCABULARY, Parrot, logits_after
from tests.runtime.engine.stepped import Stepped, hand_over

TOKENS = st.integers(2, VOCABULARY - 1)


def own_text(tokens: list[int], count: int) -> list[int]:
    """What the parrot itself would go on with: a prompt whose past is right about the answer."""
    for _ in range(count):
        tokens = [*tokens, choose(logits_after(*tokens[-2:]), Sampling(1), len(tokens))]
    return tokens


PROMPTS = st.one_of(
    st.builds(own_text, st.lists(TOKENS, min_size=2, max_size=3), st.integers(20, 70)),
    st.lists(TOKENS, min_size=1, max_size=70),
    st.builds(lambda part, times: part * times, st.lists(TOKENS, min_size=1, max_size=9), st.integers(2, 8)),
)
LENGTHS = st.one_of(st.integers(1, 12), st.integers(1, 140))
SAMPLINGS = st.builds(
    lambda length, least, **more: Sampling(max_tokens=length, min_tokens=min(least, length), **more),
    LENGTHS,
    st.sampled_from([0, 0, 5, 40]),
    temperature=st.sampled_from([0.0, 0.0, 0.4, 1.0]),
    top_k=st.sampled_from([0, 0, 3]),
    top_p=st.sampled_from([1.0, 1.0, 0.8]),
    min_p=st.sampled_from([0.0, 0.0, 0.1]),
    seed=st.integers(0, 99),
    ignore_eos=st.booleans(),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.3]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.1]),
    logit_bias=st.sampled_from([(), (), ((3, 2.5), (7, -9.0)), ((END, -MOST_BIAS),)]),
    stop_token_ids=st.sampled_from([(), (), (4,), (5, 9)]),
    logprobs=st.sampled_from([None, 0, 3]),
)
POOLS = st.tuples(st.integers(7, 12), st.just(32)) | st.tuples(st.integers(27, 60), st.just(8))
"""Pages and their size; a context just fits the smallest."""
DRAFTS = st.integers(1, 9)
WINDOWS = st.sampled_from([0, 0, 16, 50])


def pod_of(pool: tuple[int, int], window: int = 0, **more: Any) -> Stepped:
    return Stepped(Parrot(*pool, window), step_tokens=24, chunk_tokens=16, headroom_tokens=0, **more)


def answer(pod: Stepped, request: Request) -> tuple[Any, ...]:
    """All that goes to a client."""
    return pod.ids(request), pod.logprobs(request), pod.reason(request)


@settings(max_examples=80)
@given(PROMPTS, SAMPLINGS, DRAFTS, POOLS, WINDOWS, st.integers(0, 200), st.booleans())
def test_an_answer_and_each_part_of_it_is_the_same_with_drafts_and_without(
    prompt: list[int],
    sampling: Sampling,
    draft_tokens: int,
    pool: tuple[int, int],
    window: int,
    cut: int,
    deterministic: bool,
) -> None:
    plain, fast = (pod_of(pool, window, draft_tokens=most, deterministic=deterministic) for most in (0, draft_tokens))
    want, got = plain.add(prompt, sampling), fast.add(prompt, sampling)
    plain.run()
    fast.run()
    assert answer(fast, got) == answer(plain, want)
    assert len(fast.plans) <= len(plain.plans)
    assert fast.scheduler.blocks.used == 0
    emitted = plain.ids(want)[: cut % len(plain.ids(want))]
    resumed = fast.add(prompt, sampling, emitted, salt=b"elsewhere")
    fast.run()
    ids, logprobs, reason = answer(plain, want)
    assert answer(fast, resumed) == (ids[len(emitted) :], logprobs[len(emitted) :], reason)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(PROMPTS, SAMPLINGS, st.integers(0, 30)), min_size=2, max_size=6),
    DRAFTS,
    st.integers(2, 20),
    POOLS,
)
def test_requests_that_share_steps_and_take_pages_from_each_other_answer_as_if_alone(
    requests: list[tuple[list[int], Sampling, int]], draft_tokens: int, rows: int, pool: tuple[int, int]
) -> None:
    alone = [pod_of(pool).ask(prompt, sampling) for prompt, sampling, _ in requests]
    pod = pod_of(pool, draft_tokens=draft_tokens, speculative_rows=rows)
    added = []
    for prompt, sampling, steps in requests:
        added.append(pod.add(prompt, sampling))
        for _ in range(steps):
            pod.step()
    pod.run()
    assert [pod.ids(request) for request in added] == alone
    decoding = [plan for plan in pod.plans if any(step.drafts for step in plan.sequences)]
    assert all(sum(step.rows for step in plan.sequences) <= rows for plan in decoding)
    counters = pod.scheduler.counters
    assert counters.accepted_tokens <= counters.draft_tokens
    assert counters.output_tokens == sum(map(len, alone))


@settings(max_examples=30)
@given(PROMPTS, SAMPLINGS, DRAFTS, WINDOWS)
def test_a_decode_pod_drafts_from_a_prompt_that_another_pod_computed(
    prompt: list[int], sampling: Sampling, draft_tokens: int, window: int
) -> None:
    prefill, decode = (pod_of((12, 32), window, draft_tokens=draft_tokens) for _ in range(2))
    request = hand_over(prefill, decode, prompt, sampling)
    decode.run()
    assert decode.ids(request) == pod_of((12, 32)).ask(prompt, sampling)
    assert not any(step.drafts for plan in prefill.plans for step in plan.sequences)
    assert prefill.scheduler.blocks.used == decode.scheduler.blocks.used == 0


LOOP = [2, 9, 4, 7, 3, 5] * 8
GREEDY = Sampling(120, ignore_eos=True)


def looping() -> list[int]:
    """A prompt that is already what its answer will be."""
    return own_text(LOOP, 60)


def test_an_answer_that_ends_within_a_draft_ends_there() -> None:
    prompt = looping()
    ahead = own_text(prompt, 4)[-4:]
    for stop in ahead[1:]:
        pod = pod_of((12, 32), draft_tokens=7)
        request = pod.add(prompt, Sampling(50, ignore_eos=True, stop_token_ids=(stop,), logprobs=0))
        pod.run()
        assert pod.ids(request) == ahead[: ahead.index(stop) + 1]
        assert pod.reason(request) == "stop"
        assert len(pod.plans[-1].sequences[0].token_ids) > 2, "the draft went further"


@pytest.mark.parametrize(("draft_tokens", "most"), [(0, 1.0), (3, 0.27), (7, 0.16), (15, 0.11)])
def test_text_that_repeats_itself_takes_a_fraction_of_the_forwards(draft_tokens: int, most: float) -> None:
    pod = pod_of((12, 32), draft_tokens=draft_tokens)
    request = pod.add(looping(), Sampling(80, ignore_eos=True))
    pod.run()
    decoding = [plan for plan in pod.plans if plan.sequences[0].output_index > 0]
    assert len(decoding) / (len(pod.ids(request)) - 1) <= most


def test_text_that_never_repeats_itself_costs_few_rows() -> None:
    pod = pod_of((12, 32), draft_tokens=7)
    request = pod.add(LOOP, Sampling(140, temperature=50.0, seed=1, ignore_eos=True))
    pod.run()
    counters = pod.scheduler.counters
    assert len(set(pod.ids(request))) == VOCABULARY
    assert 0 < counters.draft_tokens < 0.15 * 140
    assert counters.accepted_tokens < counters.drafts


@pytest.mark.parametrize(("requests", "rows", "drafts"), [(1, 8, True), (3, 8, True), (8, 8, False), (9, 8, False)])
def test_a_large_batch_has_no_rows_to_spare(requests: int, rows: int, drafts: bool) -> None:
    pod = pod_of((60, 32), draft_tokens=7, speculative_rows=rows)
    for _ in range(requests):
        pod.add(LOOP, GREEDY)
    pod.run()
    full = [plan for plan in pod.plans if len(plan.sequences) == requests and plan.sequences[0].output_index > 0]
    assert any(step.drafts for plan in full for step in plan.sequences) is drafts


def test_a_step_with_a_prompt_in_it_has_no_slack() -> None:
    pod = pod_of((60, 32), draft_tokens=7)
    pod.add(looping(), Sampling(80, ignore_eos=True))
    for _ in range(10):
        pod.step()
    assert any(step.drafts for step in pod.plans[-1].sequences)
    pod.add(LOOP * 2, GREEDY)
    pod.step()
    assert [step.drafts for step in pod.plans[-1].sequences] == [0, 0]


def test_a_guess_never_takes_a_page_nor_reaches_past_the_end() -> None:
    pod = pod_of((12, 32), draft_tokens=15)
    request = pod.add(LOOP[:40], Sampling(1000, ignore_eos=True))
    pod.run()
    assert len(request.tokens) == CONTEXT
    for plan in pod.plans:
        [step] = plan.sequences
        own = step.position + len(step.token_ids) - step.drafts
        assert len(step.pages) <= -(-(own + 1) // 32), "the page of the next token, which it would take anyway"
        assert own + step.drafts < CONTEXT


def test_metrics_count_what_was_proposed_and_what_became_output() -> None:
    pod = pod_of((12, 32), draft_tokens=7)
    pod.add(LOOP, Sampling(60, ignore_eos=True, stop_token_ids=(14,)))
    pod.run()
    counters = pod.scheduler.counters
    steps = [step for plan in pod.plans for step in plan.sequences]
    assert counters.draft_tokens == sum(step.drafts for step in steps)
    assert counters.drafts == sum(1 for step in steps if step.drafts)
    sampled = sum(1 for step in steps if step.sampling is not None)
    assert counters.output_tokens == sampled + counters.accepted_tokens
