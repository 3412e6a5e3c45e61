"""Tokens one by one: the bytes behind the spellings of both kinds of vocabulary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.text.byte_tokenizer import EOS, ByteTokenizer
from tandem_runtime.text.token_bytes import byte_of_symbol, spelling_reader
from tokenizers import decoders

BYTE_LEVEL = spelling_reader(repr(decoders.ByteLevel()))
SENTENCE_PIECE = spelling_reader(repr(decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])))


@given(st.binary(max_size=8))
def test_every_byte_has_one_symbol_in_a_byte_level_vocabulary(data: bytes) -> None:
    symbols = {byte: symbol for symbol, byte in byte_of_symbol().items()}
    assert BYTE_LEVEL("".join(symbols[byte] for byte in data)) == data


def test_sentence_pieces_are_spaces_bytes_and_text() -> None:
    assert SENTENCE_PIECE("▁Grüß") == " Grüß".encode()
    assert SENTENCE_PIECE("<0xE2>") == b"\xe2"
    assert SENTENCE_PIECE("Ġa") == "Ġa".encode()


def test_the_bundled_tokenizer_names_its_specials() -> None:
    assert ByteTokenizer().token_bytes(65) == b"A"
    assert ByteTokenizer().token_bytes(EOS) == b"<|257|>"
