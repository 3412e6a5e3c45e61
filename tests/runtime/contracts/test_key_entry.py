"""Entries of API keys: what is wrong is said without saying what stands there."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.key_entry import KeyEntry, KeyLimits, hash_of, read_entry, write_entry

HASH = hash_of("a key of 32 characters or more !!")


def test_an_entry_is_a_bare_hash_or_json_with_limits() -> None:
    assert read_entry("alice", f" {HASH}\n".encode()) == KeyEntry(HASH)
    full = KeyEntry(HASH, "interactive", "acme", 8, 600, 100_000)
    assert json.loads(write_entry(full)) == {
        "hash": HASH,
        "class": "interactive",
        "tenant": "acme",
        "maxConcurrent": 8,
        "requestsPerMinute": 600,
        "tokensPerMinute": 100_000,
    }
    assert read_entry("alice", write_entry(full)) == full
    assert full.limits == KeyLimits(8, 600, 100_000)


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"", "hash is not sha256:"),
        (b"tandem-SECRET", "hash is not sha256:"),
        (b"{", "no JSON"),
        (b"\xff\xfe{", "hash is not"),
        (b'{"class": "a"}', "missing required field `hash`"),
        (f'{{"hash": "{HASH}", "SECRET": 1}}'.encode(), "a field that entries do not have"),
        (f'{{"hash": "{HASH}", "maxConcurrent": "SECRET"}}'.encode(), "Expected `int | null`"),
        (f'{{"hash": "{HASH}", "maxConcurrent": 0}}'.encode(), "maxConcurrent is 0"),
        (f'{{"hash": "{HASH}", "class": "SECRET"}}'.encode(), "class is not of"),
        (f'{{"hash": "{HASH.upper()}"}}'.encode(), "hash is not"),
        (b"x" * 20_000, "longer than"),
    ],
)
def test_what_is_wrong_is_named_without_the_value(content: bytes, want: str) -> None:
    with pytest.raises(ValueError, match=want) as raised:
        read_entry("alice", content)
    assert "SECRET" not in str(raised.value)


def test_a_key_put_where_its_name_belongs_is_no_name() -> None:
    with pytest.raises(ValueError, match="its name"):
        read_entry("tandem-" + "A" * 43, HASH.encode())


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_whatever_stands_there_it_is_an_entry_or_a_sentence(content: bytes) -> None:
    with suppress(ValueError):
        read_entry("alice", content)
