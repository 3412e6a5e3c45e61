"""Lists of pages that are linked through arrays: putting in, taking out of the middle and popping are all O(1)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

NOWHERE: Final = -1


class PageLists:
    """`lists` lists over pages 0 to `pages` - 1; a page is in one of them at most. Oldest first."""

    def __init__(self, pages: int, lists: int) -> None:
        self._pages = pages
        # Each list is a ring through a place of its own behind the pages: no ends to treat apart.
        self._after = array("l", [NOWHERE]) * (pages + lists)
        self._before = array("l", [NOWHERE]) * (pages + lists)
        self._lengths = [0] * lists
        for ring in range(pages, pages + lists):
            self._after[ring] = self._before[ring] = ring

    def length(self, which: int) -> int:
        """Pages in that list."""
        return self._lengths[which]

    def append(self, which: int, page: int) -> None:
        """Behind all others. The page must be in no list."""
        ring = self._pages + which
        last = self._before[ring]
        self._after[last] = self._before[ring] = page
        self._before[page], self._after[page] = last, ring
        self._lengths[which] += 1

    def remove(self, which: int, page: int) -> None:
        """Wherever in the list it is."""
        before, after = self._before[page], self._after[page]
        self._after[before], self._before[after] = after, before
        self._before[page] = self._after[page] = NOWHERE
        self._lengths[which] -= 1

    def pop(self, which: int) -> int:
        """The oldest. The list must not be empty."""
        page = self._after[self._pages + which]
        self.remove(which, page)
        return page

    def walk(self, which: int) -> Iterator[int]:
        """Oldest first. Raises ValueError where the links of both directions do not agree, or run in a circle."""
        ring = self._pages + which
        place, steps = ring, 0
        while (after := self._after[place]) != ring:
            if not 0 <= after < self._pages or self._before[after] != place or steps > self._pages:
                raise ValueError(f"list {which} is broken behind page {place}")
            yield after
            place, steps = after, steps + 1
        if self._before[ring] != place:
            raise ValueError(f"list {which} does not end with page {place}")

    def linked(self) -> int:
        """Pages that are in some list, by their own links."""
        return sum(1 for page in range(self._pages) if self._after[page] != NOWHERE)
