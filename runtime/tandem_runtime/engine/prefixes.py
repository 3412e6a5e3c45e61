"""Prefix hashes of one sequence, page by page, as far as they were asked for: the contract's chain, incrementally."""

from __future__ import annotations

from collections.abc import Sequence

from tandem_runtime.contracts.hashing import BLOCK_TOKENS, begin, follow


class PrefixHashes:
    """`key` belongs to the deployment, `salt` to the tenant: without both nobody finds a page, or guesses one."""

    __slots__ = ("_blocks", "_digest", "_key", "_page_blocks", "_pages")

    def __init__(self, key: bytes, salt: bytes, page_tokens: int) -> None:
        """Raises ValueError for pages that are not whole blocks."""
        if page_tokens % BLOCK_TOKENS:
            raise ValueError(f"pages of {page_tokens} tokens are not whole blocks of {BLOCK_TOKENS}")
        self._key = key
        self._page_blocks = page_tokens // BLOCK_TOKENS
        self._digest = begin(key, salt)
        self._blocks = 0
        self._pages: list[bytes] = []

    def of_pages(self, tokens: Sequence[int], pages: int) -> list[bytes]:
        """Hashes of the first `pages` pages of `tokens`, which only ever grows at its end."""
        while len(self._pages) < pages:
            start = self._blocks * BLOCK_TOKENS
            self._digest = follow(self._digest, tokens[start : start + BLOCK_TOKENS], self._key)
            self._blocks += 1
            if self._blocks % self._page_blocks == 0:
                self._pages.append(self._digest)
        return self._pages[:pages]
