"""How long a draft is, what it holds, and when to stop guessing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.engine.speculation import (
    HISTORY_TOKENS,
    LONGEST_REST,
    NGRAMS,
    Drafter,
    Past,
    count_held,
    share_rows,
)

TOKENS = st.lists(st.integers(0, 3), max_size=60)


@given(TOKENS, TOKENS, st.integers(1, 9))
def test_a_draft_is_what_followed_the_last_place_that_reads_like_the_end(
    given_tokens: list[int], later: list[int], count: int
) -> None:
    past = Past()
    past.follow(given_tokens, count)  # whatever was read before: it goes on from there
    tokens = given_tokens + later
    want: list[int] = []
    for size in NGRAMS:
        ends = [end for end in range(size, len(tokens)) if tokens[end - size : end] == tokens[-size:]]
        if ends and not want:
            whole = list(tokens)
            for number in range(count):
                whole.append(whole[ends[-1] + number])
            want = whole[len(tokens) :]
    assert past.follow(tokens, count) == want


def test_a_short_period_goes_on_and_on() -> None:
    assert Past().follow([7, 1, 2, 1, 2, 1, 2], 7) == [1, 2, 1, 2, 1, 2, 1]


def test_of_a_very_long_past_only_the_end_is_read() -> None:
    past = Past()
    tokens = [1, 2, 3, 4, 5, *range(10, 10 + HISTORY_TOKENS), 1, 2, 3, 4]
    assert past.follow(tokens, 1) == []
    assert len(past._next) <= HISTORY_TOKENS * len(NGRAMS)


def test_drafts_grow_while_they_hold_and_shrink_to_what_held() -> None:
    drafter, tokens = Drafter(7), [1, 2] * 20
    lengths = []
    for held in (2, 4, 7, 7, 3, 4, 0, 1):
        lengths.append(len(drafter.draft(tokens, 99)))
        drafter.learn(lengths[-1], min(held, lengths[-1]), len(tokens))
        tokens = [*tokens, 1, 2]
    assert lengths == [2, 4, 7, 7, 7, 4, 7, 1]
    assert len(drafter.draft(tokens, 99)) == 2
    assert len(drafter.draft(tokens, 1)) == 1
    assert drafter.draft(tokens, 0) == []


def test_wrong_drafts_in_a_row_make_longer_and_longer_rests() -> None:
    drafter, tokens, tried = Drafter(7), [1, 2] * 20, []
    for _ in range(400):
        if draft := drafter.draft(tokens, 99):
            tried.append(len(tokens))
            drafter.learn(len(draft), 0, len(tokens))
        tokens = [*tokens, 3 - tokens[-1]]
    gaps = [after - before for before, after in pairwise(tried)]
    assert gaps[:7] == [1, 2, 4, 8, 16, 32, 64]
    assert set(gaps[7:]) == {LONGEST_REST}


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_a_draft_holds_up_to_its_first_wrong_token(drafts: list[int], drawn: list[int]) -> None:
    held = count_held(drafts, drawn)
    assert drafts[:held] == drawn[:held]
    assert held == len(drafts) or drafts[held] != drawn[held]


@given(st.integers(0, 30), st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_rows_are_shared_and_what_one_leaves_is_the_others(spare: int, wanted: list[int]) -> None:
    given_rows, left = [], spare
    for number, rows in enumerate(wanted):
        given_rows.append(min(rows, share_rows(left, len(wanted) - number)))
        left -= given_rows[-1]
    assert left >= 0
    fair = spare // len(wanted)
    assert all(got >= min(rows, fair) for got, rows in zip(given_rows, wanted, strict=True))
