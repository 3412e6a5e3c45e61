"""Bookkeeping of KV pages: O(1) allocation and release, reference counts, generations, and the prefix cache.

A page's generation changes when its last holder lets go, so a late write that names the old one can be told. A page
with a hash keeps its content while it is free: whoever has the same prefix takes it back, until it is needed anew.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from tandem_runtime.engine.page_lists import PageLists

BLANK: Final = 0
"""Free pages that hold nothing of use: first freed, first reused, so that a stray late write hits nobody."""
CACHED: Final = 1
"""Free pages with a hash: least recently used first."""


class OutOfPages(Exception):
    """Fewer pages are free than were asked for; nothing was allocated."""


class BlockPool:
    """Pages 0 to `pages` - 1. Whoever reads or writes a page holds a reference: a held page is never reused."""

    def __init__(self, pages: int) -> None:
        if pages < 1:
            raise ValueError(f"a pool needs at least one page, got {pages}")
        self._references = array("l", [0]) * pages
        self._generations = array("q", [1]) * pages
        self._hashes: list[bytes | None] = [None] * pages
        self._by_hash: dict[bytes, int] = {}
        self._lists = PageLists(pages, 2)
        for page in range(pages):
            self._lists.append(BLANK, page)
        self.evictions = 0
        """Cached pages that gave way, cumulative."""

    @property
    def total(self) -> int:
        """Pages there are."""
        return len(self._references)

    @property
    def free(self) -> int:
        """Pages that nobody holds, those of the prefix cache included."""
        return self._lists.length(BLANK) + self._lists.length(CACHED)

    @property
    def used(self) -> int:
        """Pages that somebody holds."""
        return self.total - self.free

    @property
    def cached(self) -> int:
        """Free pages whose content can still be taken back."""
        return self._lists.length(CACHED)

    def generation(self, page: int) -> int:
        """Of a page as it is held now."""
        return self._generations[page]

    def holders(self, page: int) -> int:
        """References to it."""
        return self._references[page]

    def allocate(self, count: int) -> list[int]:
        """`count` pages with one reference each; cached ones only when no others are free. Raises OutOfPages."""
        if count > self.free:
            raise OutOfPages(f"{count} pages wanted, {self.free} of {self.total} free")
        return [self._take_oldest() for _ in range(count)]

    def _take_oldest(self) -> int:
        if self._lists.length(BLANK):
            page = self._lists.pop(BLANK)
        else:
            page = self._lists.pop(CACHED)
            self._drop_hash(page)
            self.evictions += 1
        self._references[page] = 1
        return page

    def release(self, pages: Sequence[int]) -> None:
        """One holder less; the last one frees the page. Raises ValueError for a page that is free already.

        The pages of a sequence, in its order: of those that stay cached its tail gives way first.
        """
        for page in reversed(pages):
            if self._references[page] < 1:
                raise ValueError(f"page {page} was released twice")
            self._references[page] -= 1
            if self._references[page] == 0:
                self._generations[page] += 1
                self._lists.append(BLANK if self._hashes[page] is None else CACHED, page)

    def match(self, hashes: Sequence[bytes]) -> list[int]:
        """Pages that hold the longest known beginning of this chain. Take them before anything else is allocated."""
        pages: list[int] = []
        for digest in hashes:
            page = self._by_hash.get(digest)
            if page is None:
                break
            pages.append(page)
        return pages

    def find(self, digest: bytes) -> int | None:
        """The page that holds what `digest` says."""
        return self._by_hash.get(digest)

    def take(self, pages: Iterable[int]) -> None:
        """One more holder of pages that are held or that `match` gave. Raises ValueError for any other."""
        for page in pages:
            if self._references[page] == 0:
                if self._hashes[page] is None:
                    raise ValueError(f"page {page} is free and holds nothing")
                self._lists.remove(CACHED, page)
            self._references[page] += 1

    def publish(self, page: int, digest: bytes) -> None:
        """The page is computed completely and holds what `digest` says. Another page with the same stays the one."""
        if self._references[page] < 1:
            raise ValueError(f"page {page} is free and cannot be published")
        if digest not in self._by_hash:
            self._drop_hash(page)
            self._by_hash[digest] = page
            self._hashes[page] = digest

    def forget(self, pages: Iterable[int]) -> None:
        """Nobody finds these pages again: what they hold is not to be trusted."""
        for page in pages:
            if self._hashes[page] is not None and self._references[page] == 0:
                self._lists.remove(CACHED, page)
                self._lists.append(BLANK, page)
            self._drop_hash(page)

    def _drop_hash(self, page: int) -> None:
        digest = self._hashes[page]
        if digest is not None:
            del self._by_hash[digest]
            self._hashes[page] = None

    def leaked(self, holders: Iterable[Sequence[int]]) -> int:
        """Pages whose books are wrong, 0 when all are right; `holders` are all there are, each a list of pages.

        Proves that references are those of the holders, that every other page is in exactly one free list, whose
        links agree in both directions, and that hashes and pages point at each other.
        """
        held = Counter(page for pages in holders for page in pages)
        wrong = {page for page, count in enumerate(self._references) if count != held.get(page, 0)}
        try:
            blank, cached = list(self._lists.walk(BLANK)), list(self._lists.walk(CACHED))
        except ValueError:
            return self.total
        wrong.update(page for page in (*blank, *cached) if self._references[page])
        wrong.update(page for page in blank if self._hashes[page] is not None)
        wrong.update(page for page in cached if self._hashes[page] is None)
        wrong.update(page for digest, page in self._by_hash.items() if self._hashes[page] != digest)
        listed = len(blank) + len(cached)
        lost = self.total - listed - sum(1 for count in self._references if count > 0)
        unlinked = abs(self._lists.linked() - listed) + abs(self.free - listed)
        nameless = abs(sum(1 for digest in self._hashes if digest is not None) - len(self._by_hash))
        return len(wrong) + abs(lost) + unlinked + nameless
