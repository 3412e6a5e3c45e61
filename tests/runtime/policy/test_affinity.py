"""Who is likely to hold a prefix."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts.hashing import BLOCK_TOKENS, chain
from tandem_runtime.policy.affinity import PrefixIndex


def blocks(*tokens: int) -> list[bytes]:
    """One block for each number."""
    return chain([token for token in tokens for _ in range(BLOCK_TOKENS)], b"key")


def test_each_pod_is_known_for_the_longest_beginning_that_it_was_sent() -> None:
    index = PrefixIndex()
    index.note("a", blocks(1, 2, 3, 4))
    index.note("b", blocks(1, 2, 9))
    index.note("c", blocks(7))
    assert index.cached_tokens(blocks(1, 2, 3, 5)) == {"a": 96, "b": 64}
    assert index.cached_tokens(blocks(1, 2, 3, 4, 5)) == {"a": 128, "b": 64}
    assert index.cached_tokens(blocks(2, 3)) == {}
    assert index.cached_tokens([]) == {}


def test_a_pod_that_went_holds_nothing_any_more() -> None:
    index = PrefixIndex()
    index.note("a", blocks(1, 2))
    index.note("b", blocks(1))
    index.drop("a")
    index.drop("a")
    assert index.cached_tokens(blocks(1, 2)) == {"b": 32}
    assert len(index) == 1


def test_memory_is_bounded_and_what_was_sent_long_ago_goes_first_ends_before_beginnings() -> None:
    index = PrefixIndex(max_blocks=4)
    index.note("a", blocks(1, 2, 3))
    index.note("a", blocks(8, 9))
    assert len(index) == 4
    assert index.cached_tokens(blocks(1, 2, 3)) == {"a": 64}
    assert index.cached_tokens(blocks(8, 9)) == {"a": 64}


PROMPTS = st.lists(st.integers(1, 3), max_size=5)


@given(st.lists(st.tuples(st.sampled_from("abc"), PROMPTS), max_size=12), PROMPTS)
def test_without_eviction_the_estimate_is_the_longest_common_beginning(
    sent: list[tuple[str, list[int]]], prompt: list[int]
) -> None:
    index = PrefixIndex()
    expected: dict[str, int] = {}
    for pod, tokens in sent:
        index.note(pod, blocks(*tokens))
        same = next((i for i, (x, y) in enumerate(zip(tokens, prompt, strict=False)) if x != y), None)
        common = min(len(tokens), len(prompt)) if same is None else same
        expected[pod] = max(expected.get(pod, 0), common * BLOCK_TOKENS)
    assert index.cached_tokens(blocks(*prompt)) == {pod: tokens for pod, tokens in expected.items() if tokens}
