"""Prefix hashes: keyed BLAKE2b, 128 bit, chained over blocks of 32 tokens whatever the page size.

The key belongs to the deployment, the salt to the tenant: pods and routers agree, tenants cannot probe each other.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

BLOCK_TOKENS: Final = 32
DIGEST_BYTES: Final = 16


def begin(key: bytes, salt: bytes = b"") -> bytes:
    """What the first block of a chain follows."""
    return blake2b(salt, digest_size=DIGEST_BYTES, key=key[:64]).digest()


def follow(previous: bytes, tokens: Sequence[int], key: bytes) -> bytes:
    """Hash of one whole block of `tokens` that comes after `previous`."""
    ids = array("I", tokens).tobytes()
    return blake2b(previous + ids, digest_size=DIGEST_BYTES, key=key[:64]).digest()


def chain(tokens: Sequence[int], key: bytes, salt: bytes = b"", blocks: int | None = None) -> list[bytes]:
    """Hashes of the first `blocks` whole blocks of `tokens` (all of them by default), each over its predecessor."""
    whole = len(tokens) // BLOCK_TOKENS
    hashes: list[bytes] = []
    previous = begin(key, salt)
    for block in range(whole if blocks is None else min(blocks, whole)):
        previous = follow(previous, tokens[block * BLOCK_TOKENS : (block + 1) * BLOCK_TOKENS], key)
        hashes.append(previous)
    return hashes


def prompt_digest(tokens: Sequence[int]) -> int:
    """A 63-bit number for the whole prompt: what the emulated executor derives its tokens from."""
    return int.from_bytes(blake2b(array("I", tokens).tobytes(), digest_size=8).digest(), "little") >> 1
