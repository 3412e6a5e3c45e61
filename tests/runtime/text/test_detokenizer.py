"""Ids pushed one by one read like all ids decoded at once, and no half character ever leaves."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tandem_runtime.text.byte_tokenizer import EOS, VOCAB_SIZE, ByteTokenizer
from tandem_runtime.text.detokenizer import REPLACEMENT, Detokenizer
from tandem_runtime.text.tokenizer import Tokenizer
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models, pre_tokenizers, trainers

PROSE = "The decode pod owns the request; 解码 goes on — naïve cafés, 👩‍👩‍👧 and 🇩🇪 too. " * 3


class Wrapped:
    """A `tokenizers` tokenizer with the two methods that a detokenizer needs."""

    vocab_size = 0
    eos_token_ids: frozenset[int] = frozenset()

    def __init__(self, inner: Inner) -> None:
        self.inner = inner

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(self.inner.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: object) -> str:
        return str(self.inner.decode(list(ids)))  # type: ignore[call-overload]

    def apply_chat_template(self, messages: object) -> list[int]:
        raise AssertionError("not used here")


def byte_level() -> Wrapped:
    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        [PROSE], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    return Wrapped(inner)


def byte_fallback() -> Wrapped:
    """Like Llama 2: pieces with a space before words, every other character as bytes, leading space stripped."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdehlorst", "▁the", "▁de"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "d"), ("▁d", "e")]
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    inner = Inner(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Wrapped(inner)


TOKENIZERS: dict[str, Tokenizer] = {"bytes": ByteTokenizer(), "byte-level": byte_level(), "fallback": byte_fallback()}


def push_all(tokenizer: Tokenizer, ids: list[int], prefix_ids: list[int] | None = None) -> str:
    detokenizer = Detokenizer(tokenizer, prefix_ids or [])
    return "".join([detokenizer.push([token_id]) for token_id in ids]) + detokenizer.flush()


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(max_size=60))
@settings(max_examples=60, deadline=None)
@example(text=PROSE)
@example(text=" the the de the")
@example(text="👩‍👩‍👧" * 12)
def test_any_text_pushed_one_by_one_comes_out_as_decoded_at_once(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert push_all(tokenizer, ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["bytes", "byte-level"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_ids_pushed_one_by_one_come_out_as_decoded_at_once(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    vocab_size = VOCAB_SIZE if name == "bytes" else 300
    ids = data.draw(st.lists(st.integers(0, vocab_size - 1), max_size=80))
    assert push_all(tokenizer, ids) == tokenizer.decode(ids)


@given(st.lists(st.sampled_from([0x41, 0x82, 0x9F, 0xAC, 0xC3, 0xE2, 0xF0, 0x98, EOS]), max_size=120))
@settings(max_examples=100, deadline=None)
def test_broken_bytes_come_out_as_decoded_at_once(ids: list[int]) -> None:
    assert push_all(ByteTokenizer(), ids) == ByteTokenizer().decode(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(alphabet="the dé解👩", min_size=1, max_size=40), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_stream_resumed_anywhere_continues_the_text(name: str, text: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False)
    cut = data.draw(st.integers(0, len(ids)))
    first = Detokenizer(tokenizer)
    before = first.push(ids[:cut])
    assert before + push_all(tokenizer, ids[cut:], ids[:cut]) == tokenizer.decode(ids)


def test_an_incomplete_character_is_held_back_until_its_last_byte() -> None:
    detokenizer = Detokenizer(ByteTokenizer())
    euro = "€".encode()
    assert [detokenizer.push([byte]) for byte in (*b"a", *euro, *b"b")] == ["a", "", "", "€", "b"]


def test_flush_gives_what_never_became_a_character() -> None:
    detokenizer = Detokenizer(ByteTokenizer())
    assert detokenizer.push([0x41, 0xE2, 0x82]) == "A"
    assert detokenizer.flush() == REPLACEMENT
    assert detokenizer.flush() == ""


def test_bytes_that_are_no_text_are_let_go_before_the_end_of_the_stream() -> None:
    detokenizer = Detokenizer(ByteTokenizer())
    assert len(detokenizer.push([0xFF] * 100)) >= 80


@pytest.mark.parametrize("token_id", [0x41, 0xFF, EOS])
def test_the_cost_of_a_push_does_not_grow_with_the_stream(token_id: int) -> None:
    detokenizer = Detokenizer(ByteTokenizer())
    started = time.process_time()
    detokenizer.push([token_id] * 50_000)
    assert time.process_time() - started < 5, "quadratic in the length of the stream"
