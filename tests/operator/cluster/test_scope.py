"""Which namespaces are watched: a tenant that leaves must not stop the operator for the others."""

from __future__ import annotations

import asyncio

from tandem_operator.cluster.scope import Scope
from tandem_operator.reconcile.errors import ApiError


class Answers:
    """An API server that refuses the namespaces in `refused`."""

    def __init__(self, **refused: int) -> None:
        self.refused: dict[str | None, int] = dict(refused)
        self.asked = 0

    async def check(self, kind: str, namespace: str | None) -> None:
        self.asked += 1
        if status := self.refused.get(namespace):
            raise ApiError(status, "no")


class Run:
    """A scope that is followed; each `tick` is one pause between two questions."""

    def __init__(self, answers: Answers, *namespaces: str) -> None:
        self.watched: list[tuple[str, ...]] = []
        self.stop = asyncio.Event()
        self._ticks: asyncio.Queue[None] = asyncio.Queue()
        self._sleeps = 0
        scope = Scope(answers, namespaces, 30.0, self._sleep)
        self.task = asyncio.create_task(scope.follow(self._watch, self.stop))

    async def _sleep(self, seconds: float) -> None:
        self._sleeps += 1
        await self._ticks.get()

    async def _watch(self, namespaces: tuple[str, ...]) -> None:
        self.watched.append(namespaces)
        await self.stop.wait()

    async def tick(self, times: int = 1) -> None:
        for _ in range(times):
            before = self._sleeps
            self._ticks.put_nowait(None)
            async with asyncio.timeout(10):
                while self._sleeps == before and not self.task.done():
                    await asyncio.sleep(0)

    async def begin(self) -> None:
        async with asyncio.timeout(10):
            while not self._sleeps:
                await asyncio.sleep(0)

    async def end(self) -> None:
        self.stop.set()
        async with asyncio.timeout(10):
            await self.task


async def test_all_namespaces_are_one_question() -> None:
    answers = Answers()
    run = Run(answers)
    await run.begin()
    assert (run.watched, answers.asked) == ([()], 1)
    await run.end()


async def test_a_namespace_that_refuses_is_left_out_and_the_others_are_watched() -> None:
    run = Run(Answers(b=403), "a", "b", "c")
    await run.begin()
    assert run.watched == [("a", "c")]
    await run.tick(5)
    assert not run.stop.is_set()
    await run.end()


async def test_a_namespace_that_comes_or_goes_starts_the_process_anew() -> None:
    for before, after in ({"b": 403}, {}), ({}, {"b": 403}):
        answers = Answers(**before)
        run = Run(answers, "a", "b")
        await run.begin()
        answers.refused = dict(after)
        await run.tick(1)
        assert not run.stop.is_set(), "one answer may be a mistake"
        await run.tick(1)
        assert run.stop.is_set()
        await run.end()


async def test_an_answer_that_changes_for_a_moment_changes_nothing() -> None:
    answers = Answers()
    run = Run(answers, "a")
    await run.begin()
    for status in (403, 0, 503, 403):
        answers.refused = {"a": status} if status else {}
        await run.tick(1)
    assert not run.stop.is_set()
    await run.end()


async def test_the_definition_is_waited_for() -> None:
    answers = Answers()
    answers.refused = {None: 404}
    run = Run(answers)
    await run.begin()
    await run.tick(2)
    assert run.watched == []
    answers.refused = {None: 503}
    await run.tick(2)
    answers.refused = {}
    await run.tick(1)
    assert run.watched == [()]
    await run.end()
