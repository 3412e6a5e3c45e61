"""Pages are lost by nobody and given to nobody twice; what is cached is found again or gone, never something else."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from tandem_runtime.engine.blocks import BlockPool, OutOfPages

PAGES = 12


class PoolMachine(RuleBasedStateMachine):
    """Any order of allocate, share and release keeps the books right."""

    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(PAGES)
        self.held: list[list[int]] = []
        self.generations: dict[int, int] = {}
        self.content: dict[int, bytes] = {}
        """What was published of a page since it was last allocated."""
        self.names = 0

    @rule(target=holders, count=st.integers(0, PAGES))
    def allocate(self, count: int) -> list[int]:
        before = self.pool.free
        if count > before:
            with pytest.raises(OutOfPages):
                self.pool.allocate(count)
            assert self.pool.free == before
            pages: list[int] = []
        else:
            pages = self.pool.allocate(count)
            owned = {page for holder in self.held for page in holder}
            assert not owned & set(pages), "a page that is held was given away"
        for page in pages:
            assert self.pool.generation(page) > self.generations.get(page, 0)
            self.content.pop(page, None)
        self.held.append(pages)
        return pages

    @rule(target=holders, pages=holders)
    def share(self, pages: list[int]) -> list[int]:
        copy = list(pages)
        self.pool.take(copy)
        self.held.append(copy)
        return copy

    @rule(pages=consumes(holders))
    def release(self, pages: list[int]) -> None:
        self.held = [holder for holder in self.held if holder is not pages]
        for page in pages:
            self.generations[page] = self.pool.generation(page) if not self._is_held(page) else 0
        self.pool.release(pages)

    @rule(pages=holders)
    def publish(self, pages: list[int]) -> None:
        for page in pages:
            self.names += 1
            self.pool.publish(page, b"%d" % self.names)
            self.content[page] = b"%d" % self.names

    @rule(target=holders, names=st.lists(st.integers(1, 30), max_size=3))
    def take_back(self, names: list[int]) -> list[int]:
        hashes = [b"%d" % name for name in names]
        pages = self.pool.match(hashes)
        assert [self.content[page] for page in pages] == hashes[: len(pages)]
        self.pool.take(pages)
        self.held.append(pages)
        return pages

    @rule(page=st.integers(0, PAGES - 1))
    def forget(self, page: int) -> None:
        digest = self.content.pop(page, b"none")
        self.pool.forget([page])
        assert self.pool.match([digest]) == []

    def _is_held(self, page: int) -> bool:
        return any(page in holder for holder in self.held)

    @invariant()
    def books_are_right(self) -> None:
        assert self.pool.leaked(self.held) == 0
        held = {page for holder in self.held for page in holder}
        assert self.pool.used == len(held)
        assert self.pool.cached == len(self.content.keys() - held)


PoolMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestPool = PoolMachine.TestCase


def test_a_double_release_is_an_error_and_changes_nothing_else() -> None:
    pool = BlockPool(2)
    pages = pool.allocate(1)
    pool.release(pages)
    with pytest.raises(ValueError, match="released twice"):
        pool.release(pages)
    with pytest.raises(ValueError, match="is free"):
        pool.take(pages)
    assert pool.free == 2


def test_a_page_that_nobody_returns_shows_as_leaked() -> None:
    pool = BlockPool(4)
    held = pool.allocate(2)
    assert pool.leaked([held]) == 0
    assert pool.leaked([held[:1]]) == 1


def test_a_freed_page_is_the_last_to_be_used_again() -> None:
    pool = BlockPool(3)
    first = pool.allocate(1)
    pool.release(first)
    assert pool.allocate(2) == [1, 2]
    assert pool.allocate(1) == first


def test_the_beginning_of_a_chain_is_found_while_its_pages_are_free_and_its_tail_gives_way_first() -> None:
    pool = BlockPool(4)
    pages = pool.allocate(3)
    for page, digest in zip(pages, (b"a", b"b", b"c"), strict=True):
        pool.publish(page, digest)
    pool.release(pages)
    assert pool.cached == 3
    assert pool.allocate(2) == [3, pages[2]], "a blank page first, then the cached tail"
    assert pool.match([b"a", b"b", b"c"]) == pages[:2]
    pool.take(pages[:2])
    assert pool.free == 0
    with pytest.raises(OutOfPages):
        pool.allocate(1)
    pool.release(pages[:2])
    assert pool.evictions == 1


def test_the_least_recently_used_prefix_gives_way_first() -> None:
    pool = BlockPool(2)
    [first], [second] = pool.allocate(1), pool.allocate(1)
    pool.publish(first, b"first")
    pool.publish(second, b"second")
    pool.release([first])
    pool.release([second])
    pool.take(pool.match([b"first"]))
    pool.release([first])
    assert pool.allocate(1) == [second]
    assert pool.match([b"second"]) == []
    assert pool.match([b"first"]) == [first]


def test_of_two_pages_with_the_same_content_one_is_found_and_both_are_returned() -> None:
    pool = BlockPool(2)
    pages = pool.allocate(2)
    for page in pages:
        pool.publish(page, b"same")
    pool.release(pages)
    assert pool.cached == 1
    assert pool.match([b"same"]) == pages[:1]
    assert pool.leaked([]) == 0


def test_broken_books_show_whatever_breaks_them() -> None:
    def pool_with_a_cached_page() -> BlockPool:
        pool = BlockPool(4)
        pages = pool.allocate(2)
        pool.publish(pages[0], b"a")
        pool.release(pages)
        assert pool.leaked([]) == 0
        return pool

    pool = pool_with_a_cached_page()
    pool._references[3] += 1
    assert pool.leaked([]) > 0
    pool = pool_with_a_cached_page()
    pool._hashes[0] = None
    assert pool.leaked([]) > 0
    pool = pool_with_a_cached_page()
    pool._by_hash[b"b"] = 2
    assert pool.leaked([]) > 0
    pool = pool_with_a_cached_page()
    pool._lists._after[2] = 2
    assert pool.leaked([]) > 0
    pool = pool_with_a_cached_page()
    pool._lists.remove(0, 3)
    assert pool.leaked([]) > 0
