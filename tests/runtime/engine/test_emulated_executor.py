"""The executor without a model: right time, same tokens everywhere, and wrong pages noticed."""

from __future__ import annotations

import pytest
from tandem_runtime.contracts.coefficients import read_coefficients
from tandem_runtime.contracts.hashing import prompt_digest
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.emulated_executor import EmulatedExecutor
from tandem_runtime.engine.executor import Plan, SequenceError, SequenceStep
from tandem_runtime.text.byte_tokenizer import EOS, ByteTokenizer

LAPTOP = read_coefficients("laptop")
PROMPT = [token % 256 for token in range(80)]
PAGES = [7, 3, 9]
GREEDY = Sampling(2000)


def make(slept: list[float] | None = None) -> EmulatedExecutor:
    slept = [] if slept is None else slept
    executor = EmulatedExecutor(LAPTOP, sleep=slept.append)
    executor.load()
    return executor


def chunk(start: int, end: int, pages: list[int] = PAGES, prompt: list[int] = PROMPT) -> Plan:
    sampling = GREEDY if end == len(prompt) else None
    covered = pages[: -(-end // 32)]
    return Plan([SequenceStep(prompt[start:end], start, covered, sampling, end - len(prompt), prompt_digest(prompt))])


def next_token(token: int, index: int, pages: list[int] = PAGES, prompt: list[int] = PROMPT) -> Plan:
    position = len(prompt) + index - 1
    return Plan([SequenceStep([token], position, pages[: position // 32 + 1], GREEDY, index, prompt_digest(prompt))])


def prefill(executor: EmulatedExecutor, *cuts: int) -> int:
    ends = [*cuts, len(PROMPT)]
    for start, end in zip([0, *cuts], ends, strict=True):
        [token] = executor.execute(chunk(start, end)).ids
    assert token is not None
    return token


def test_tokens_depend_on_prompt_and_index_alone_and_are_readable_text() -> None:
    one, two = make(), make()
    first = prefill(one)
    assert first == prefill(two, 10, 64)
    ids = [first]
    for index in range(1, 12):
        [left], [right] = one.execute(next_token(ids[-1], index)).ids, two.execute(next_token(ids[-1], index)).ids
        assert left == right
        assert left is not None
        ids.append(left)
    assert len(set(ids)) > 3
    assert ByteTokenizer().decode(ids).isprintable()


def test_pages_taken_over_from_another_pod_are_accepted_and_the_stream_goes_on() -> None:
    source, target = make(), make()
    first = prefill(source)
    pages = [4, 5, 6]
    target.write_pages(pages, 0, 1, source.read_pages(PAGES, 0, 1))
    assert target.execute(next_token(first, 1, pages)).ids == source.execute(next_token(first, 1)).ids


def flip(payload: memoryview, position: int) -> memoryview:
    damaged = bytearray(payload)
    damaged[position] ^= 1
    return memoryview(bytes(damaged))


@pytest.mark.parametrize("position", [0, 17, 25, 500, -1])
def test_any_flipped_bit_of_a_page_is_noticed(position: int) -> None:
    source, target = make(), make()
    first = prefill(source)
    payloads = source.read_pages(PAGES, 0, 1)
    payloads[1] = flip(payloads[1], position)
    target.write_pages(PAGES, 0, 1, payloads)
    with pytest.raises(SequenceError, match="its KV is wrong"):
        target.execute(next_token(first, 1))


def test_a_missing_or_swapped_page_is_noticed() -> None:
    source = make()
    first = prefill(source)
    payloads = source.read_pages(PAGES, 0, 1)
    for wrong in ([payloads[0], payloads[2], payloads[1]], [payloads[1], payloads[1], payloads[2]]):
        target = make()
        target.write_pages(PAGES, 0, 1, wrong)
        with pytest.raises(SequenceError):
            target.execute(next_token(first, 1))
    target = make()
    target.write_pages(PAGES[:2], 0, 1, payloads[:2])
    with pytest.raises(SequenceError):
        target.execute(next_token(first, 1))


def test_the_pages_of_another_prompt_are_noticed() -> None:
    source, target = make(), make()
    first = prefill(source)
    target.write_pages(PAGES, 0, 1, source.read_pages(PAGES, 0, 1))
    other = [*PROMPT[:-1], 1]
    with pytest.raises(SequenceError, match="another prompt"):
        target.execute(next_token(first, 1, prompt=other))


def test_a_late_write_into_a_page_in_use_is_noticed() -> None:
    executor, other = make(), make()
    first = prefill(executor)
    executor.execute(next_token(first, 1))
    other.execute(chunk(0, 32, [7], [9] * 40))
    executor.write_pages([PAGES[0]], 0, 1, other.read_pages([7], 0, 1))
    with pytest.raises(SequenceError):
        executor.execute(next_token(first, 2))


def test_the_other_sequences_of_a_failed_step_can_be_run_again() -> None:
    executor = make()
    good = next_token(prefill(executor), 1).sequences[0]
    bad = SequenceStep([1], 5, [12], GREEDY, 1, 77)
    with pytest.raises(SequenceError) as caught:
        executor.execute(Plan([good, bad]))
    assert caught.value.index == 1
    assert executor.execute(Plan([good])).ids != [None]


def test_it_sleeps_what_the_coefficients_say() -> None:
    slept: list[float] = []
    executor = make(slept)
    first = prefill(executor)
    executor.execute(next_token(first, 1))
    want = [0.0, LAPTOP.prefill_seconds(80), LAPTOP.step_seconds(1, 80)]
    for got, seconds in zip(slept, want, strict=True):
        assert seconds - 0.002 <= got <= seconds


def test_an_answer_ends_itself_unless_that_is_ignored() -> None:
    executor = make()
    digest = prompt_digest(PROMPT)
    step = SequenceStep([1], 0, [1], GREEDY, 1023, digest)
    assert executor._token(step) == EOS
    assert executor._token(SequenceStep([1], 0, [1], Sampling(2000, ignore_eos=True), 1023, digest)) != EOS
    assert executor._token(SequenceStep([1], 0, [1], GREEDY, 511, digest)) != EOS


def test_a_payload_of_the_wrong_size_is_refused() -> None:
    executor = make()
    with pytest.raises(ValueError, match="payload of 3 bytes"):
        executor.write_pages([0], 0, 1, [memoryview(b"abc")])
    with pytest.raises(ValueError, match="one layer"):
        executor.read_pages([0], 0, 2)


def test_drafts_are_answered_row_by_row_and_what_they_wrote_is_written_over() -> None:
    slept: list[float] = []
    executor, plain = make(slept), make()
    tokens = [prefill(executor)]
    assert prefill(plain) == tokens[0]
    for index in range(1, 8):
        tokens += [token for token in plain.execute(next_token(tokens[-1], index)).ids if token is not None]
    drafts = [tokens[1], tokens[2], tokens[3] ^ 1, tokens[4]]
    step = SequenceStep([tokens[0], *drafts], 80, PAGES, GREEDY, 1, prompt_digest(PROMPT), drafts=4)
    assert executor.execute(Plan([step])).ids == tokens[1:6], "ids depend on the place alone"
    assert slept[-1] <= LAPTOP.step_seconds(1, 80), "a step of decoding, not of prompts"
    for index in range(4, 8):
        assert executor.execute(next_token(tokens[index - 1], index)).ids == [tokens[index]]
