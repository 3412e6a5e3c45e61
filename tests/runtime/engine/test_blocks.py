"""Pages are lost by nobody and given to nobody twice."""

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
        self.held.append(pages)
        return pages

    @rule(target=holders, pages=holders)
    def share(self, pages: list[int]) -> list[int]:
        copy = list(pages)
        self.pool.retain(copy)
        self.held.append(copy)
        return copy

    @rule(pages=consumes(holders))
    def release(self, pages: list[int]) -> None:
        self.held = [holder for holder in self.held if holder is not pages]
        for page in pages:
            self.generations[page] = self.pool.generation(page) if not self._is_held(page) else 0
        self.pool.release(pages)

    def _is_held(self, page: int) -> bool:
        return any(page in holder for holder in self.held)

    @invariant()
    def books_are_right(self) -> None:
        assert self.pool.leaked(self.held) == 0
        assert self.pool.used == len({page for holder in self.held for page in holder})


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestPool = PoolMachine.TestCase


def test_a_double_release_is_an_error_and_changes_nothing_else() -> None:
    pool = BlockPool(2)
    pages = pool.allocate(1)
    pool.release(pages)
    with pytest.raises(ValueError, match="released twice"):
        pool.release(pages)
    with pytest.raises(ValueError, match="is free"):
        pool.retain(pages)
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
