"""Hashes of pages are the contract's, however many are asked for at a time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.hashing import chain
from tandem_runtime.engine.prefixes import PrefixHashes


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=300), st.sampled_from([32, 64]), st.binary(max_size=8))
def test_page_by_page_it_is_the_chain_of_the_contract(tokens: list[int], page_tokens: int, salt: bytes) -> None:
    hashes = PrefixHashes(b"key", salt, page_tokens)
    whole = chain(tokens, b"key", salt)[page_tokens // 32 - 1 :: page_tokens // 32]
    for pages in range(len(tokens) // page_tokens + 1):
        assert hashes.of_pages(tokens, pages) == whole[:pages]
    assert hashes.of_pages(tokens, 0) == []


def test_pages_that_are_no_whole_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="48 tokens"):
        PrefixHashes(b"", b"", 48)
