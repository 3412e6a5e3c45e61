"""Bookkeeping of KV pages: O(1) allocation and release, reference counts, a generation per page.

A page's generation changes when its last holder lets go, so a late write that names the old one can be told.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Iterable, Sequence


class OutOfPages(Exception):
    """Fewer pages are free than were asked for; nothing was allocated."""


class BlockPool:
    """Pages 0 to `pages` - 1. Freed pages are reused as late as possible (first freed, first reused)."""

    def __init__(self, pages: int) -> None:
        if pages < 1:
            raise ValueError(f"a pool needs at least one page, got {pages}")
        self._references = array("l", [0]) * pages
        self._generations = array("q", [1]) * pages
        self._free = deque(range(pages))

    @property
    def total(self) -> int:
        """Pages there are."""
        return len(self._references)

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Pages that somebody holds."""
        return self.total - self.free

    def generation(self, page: int) -> int:
        """Of a page as it is held now."""
        return self._generations[page]

    def allocate(self, count: int) -> list[int]:
        """`count` pages with one reference each. Raises OutOfPages."""
        if count > len(self._free):
            raise OutOfPages(f"{count} pages wanted, {len(self._free)} of {self.total} free")
        pages = [self._free.popleft() for _ in range(count)]
        for page in pages:
            self._references[page] = 1
        return pages

    def retain(self, pages: Iterable[int]) -> None:
        """One more holder. Raises ValueError for a page that nobody holds: its content is not defined."""
        for page in pages:
            if self._references[page] < 1:
                raise ValueError(f"page {page} is free and cannot be shared")
            self._references[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """One holder less; the last one frees the page. Raises ValueError for a page that is free already."""
        for page in pages:
            if self._references[page] < 1:
                raise ValueError(f"page {page} was released twice")
            self._references[page] -= 1
            if self._references[page] == 0:
                self._generations[page] += 1
                self._free.append(page)

    def leaked(self, holders: Iterable[Sequence[int]]) -> int:
        """Pages whose reference count is not the number of `holders` (each a list of pages) that have them."""
        held = Counter(page for pages in holders for page in pages)
        wrong = sum(1 for page, count in enumerate(self._references) if count != held.get(page, 0))
        lost = self.total - self.free - sum(1 for count in self._references if count > 0)
        return wrong + abs(lost)
