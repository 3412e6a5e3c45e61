"""The bytes that one token stands for, whatever its neighbours: what log probabilities show of tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""How SentencePiece vocabularies spell bytes that are no character of theirs."""
SPACE: Final = "▁"


def byte_of_symbol() -> dict[str, int]:
    """Byte-level BPE since GPT-2 spells each byte as one printable character; this is the way back."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    symbols = {chr(byte): byte for byte in printable}
    return symbols | {chr(256 + place): byte for place, byte in enumerate(hidden)}


def spelling_reader(decoder: str) -> Callable[[str], bytes]:
    """From the spelling in a vocabulary to bytes. `decoder`: the tokenizer's decoder in words, to know its alphabet."""
    symbols = byte_of_symbol() if "ByteLevel" in decoder else {}

    def read(spelling: str) -> bytes:
        if symbols:
            return b"".join(bytes([symbols[s]]) if s in symbols else s.encode() for s in spelling)
        found = BYTE_TOKEN.fullmatch(spelling)
        return bytes([int(found[1], 16)]) if found else spelling.replace(SPACE, " ").encode()

    return read
