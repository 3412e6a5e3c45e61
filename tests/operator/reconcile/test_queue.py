"""The work queue: one run per key at a time, nothing lost, errors back off."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tandem_operator.config import LoopSettings
from tandem_operator.reconcile.errors import Waiting
from tandem_operator.reconcile.queue import Outcome, WorkQueue

FAST = LoopSettings(resync_seconds=1000, backoff_base_seconds=0.01, backoff_limit_seconds=0.04)


@asynccontextmanager
async def running(queue: WorkQueue[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def test_a_thousand_events_during_a_run_are_one_more_run() -> None:
    runs: list[str] = []
    gate = asyncio.Event()

    async def work(key: str) -> float:
        runs.append(key)
        await gate.wait()
        return math.inf

    queue = WorkQueue(work, FAST)
    async with running(queue):
        queue.add("a")
        await until(lambda: len(runs) == 1)
        for _ in range(1000):
            queue.add("a")
        gate.set()
        await until(lambda: len(runs) == 2 and queue.oldest_seconds() == 0)
        assert runs == ["a", "a"]


async def test_a_key_is_never_worked_on_twice_at_the_same_time_but_keys_are() -> None:
    busy: set[str] = set()
    together = 0
    done = 0

    async def work(key: str) -> float:
        nonlocal together, done
        assert key not in busy
        busy.add(key)
        together = max(together, len(busy))
        await asyncio.sleep(0.005)
        busy.discard(key)
        done += 1
        return math.inf

    queue = WorkQueue(work, FAST)
    async with running(queue):
        for _ in range(3):
            for key in "abcdefgh":
                queue.add(key)
            await asyncio.sleep(0.003)
        await until(lambda: done >= 8 and not busy and queue.depth() == 0)
    assert 1 < together <= FAST.workers


async def test_an_error_backs_off_and_is_tried_again_until_it_works() -> None:
    outcomes: list[Outcome] = []
    attempts = 0

    async def work(key: str) -> float:
        nonlocal attempts
        attempts += 1
        if attempts < 4:
            raise RuntimeError("no")
        return math.inf

    queue = WorkQueue(work, FAST, outcomes.append)
    async with running(queue):
        queue.add("a")
        await until(lambda: len(outcomes) == 4)
    assert [o.result for o in outcomes] == ["error", "error", "error", "success"]


async def test_waiting_is_no_error_and_comes_back_when_it_said() -> None:
    outcomes: list[Outcome] = []

    async def work(key: str) -> float | None:
        if not outcomes:
            raise Waiting("not yet", 0.01)
        return None

    queue = WorkQueue(work, FAST, outcomes.append)
    async with running(queue):
        queue.add("a")
        await until(lambda: len(outcomes) == 2)
    assert [o.result for o in outcomes] == ["waiting", "success"]


async def test_every_key_comes_again_at_the_resync_except_forgotten_ones() -> None:
    seen: list[str] = []

    async def work(key: str) -> float | None:
        seen.append(key)
        return None if key == "gone" else math.inf

    queue = WorkQueue(work, LoopSettings(resync_seconds=0.01), draw=lambda: 0.5)
    async with running(queue):
        queue.add("gone")
        queue.add("here")
        await until(lambda: seen.count("here") >= 3)
    assert seen.count("gone") == 1


async def test_a_change_that_concerns_all_reaches_a_key_that_is_being_worked_on_for_the_first_time() -> None:
    gate, runs = asyncio.Event(), 0

    async def work(key: str) -> float:
        nonlocal runs
        runs += 1
        await gate.wait()
        return math.inf

    queue = WorkQueue(work, FAST)
    async with running(queue):
        queue.add("a")
        await until(lambda: runs == 1)
        queue.add_all()
        gate.set()
        await until(lambda: runs == 2)


@pytest.mark.parametrize("dates", [(0.01, 500), (500, 0.01)])
async def test_of_two_dates_the_sooner_counts(dates: tuple[float, float]) -> None:
    runs = 0

    async def work(key: str) -> float:
        nonlocal runs
        runs += 1
        return math.inf

    queue = WorkQueue(work, FAST)
    async with running(queue):
        for seconds in dates:
            queue.add_after("a", seconds)
        await until(lambda: runs == 1)


async def test_the_age_of_the_oldest_key_tells_a_hanging_loop() -> None:
    now = 0.0
    queue: WorkQueue[str] = WorkQueue(lambda key: asyncio.sleep(0, 1.0), FAST, clock=lambda: now)
    assert queue.oldest_seconds() == 0
    queue.add("a")
    now = 100.0
    assert queue.oldest_seconds() == 100
    assert queue.depth() == 1


async def test_a_long_queue_that_moves_is_no_stall_but_a_run_without_end_is() -> None:
    now = 0.0
    gate = asyncio.Event()
    runs = 0

    async def work(key: str) -> float:
        nonlocal now, runs
        runs += 1
        if key == "hangs":
            await gate.wait()
        now += 1.0
        return math.inf

    queue = WorkQueue(work, LoopSettings(workers=1), clock=lambda: now)
    for n in range(1000):
        queue.add(str(n))
    async with running(queue):
        await until(lambda: runs == 1000 and not queue.depth())
        assert now == 1000
        queue.add("hangs")
        await until(lambda: runs == 1001)
        queue.add("waits")
        assert queue.stalled_seconds() == 0
        now += 500
        assert queue.stalled_seconds() == 500
        gate.set()
        await until(lambda: runs == 1002)
    stuck: WorkQueue[str] = WorkQueue(work, FAST, clock=lambda: now)
    stuck.add("a")
    now += 500
    assert stuck.stalled_seconds() == 500, "no worker takes it"
