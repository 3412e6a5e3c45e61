"""Level-triggered work queue: a key is held once, worked on by one worker, run again when it was touched meanwhile."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tandem_operator.config import LoopSettings
from tandem_operator.reconcile.errors import ApiError, Waiting

K = TypeVar("K", bound=Hashable)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """One run of one key, for metrics."""

    result: str
    """success | waiting | error"""
    seconds: float


class WorkQueue(Generic[K]):
    """`work(key)` returns seconds until the next look, or None: forget it. Errors back off; resync brings all again."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        settings: LoopSettings,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._work = work
        self._settings = settings
        self._on_outcome = on_outcome
        self._clock = clock
        self._draw = draw
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._queued: dict[K, float] = {}
        self._running: dict[K, float] = {}
        self._dirty: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K) -> None:
        """Look at `key` as soon as a worker is free."""
        if key in self._running:
            self._dirty.add(key)
        elif key not in self._queued:
            self._queued[key] = self._clock()
            self._ready.put_nowait(key)

    def add_all(self) -> None:
        """Look at every key that would be looked at some time anyway: something changed that concerns them all."""
        for key in {**self._timers, **self._running}:  # what runs may have read what was there before
            self.add(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Look at `key` in `seconds`; of several the soonest counts."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def depth(self) -> int:
        return len(self._queued)

    def oldest_seconds(self) -> float:
        """Age of what has waited or run the longest; 0 when idle."""
        since = [*self._queued.values(), *self._running.values()]
        return self._clock() - min(since) if since else 0.0

    def stalled_seconds(self) -> float:
        """Age of the oldest run, or of what waits though nothing runs. A long queue that moves is no stall."""
        since = self._running or self._queued
        return self._clock() - min(since.values()) if since else 0.0

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.workers):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._running[key] = started = self._clock()
            del self._queued[key]
            try:
                result, after = await self._attempt(key)
            finally:
                del self._running[key]
            self._on_outcome(Outcome(result, self._clock() - started))
            self._forget_timer(key)
            if after is not None:
                self.add_after(key, after)
            if key in self._dirty:
                self._dirty.discard(key)
                self.add(key)

    def _forget_timer(self, key: K) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()

    async def _attempt(self, key: K) -> tuple[str, float | None]:
        """(result, seconds until the next look or None)."""
        settings = self._settings
        try:
            after = await self._work(key)
        except Waiting as waiting:
            log.info("waiting: %s", waiting, extra={"key": key})
            return "waiting", waiting.seconds
        except Exception as error:  # any error of one key must neither stop the others nor be lost
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            backoff = min(settings.backoff_base_seconds * 2 ** min(failures - 1, 30), settings.backoff_limit_seconds)
            seconds = self._jittered(backoff, settings.backoff_jitter)
            log.warning(
                "failed %d times, again in %.1f s: %s",
                failures,
                seconds,
                error,
                extra={"key": key},
                exc_info=not isinstance(error, ApiError),  # what the API server says needs no stack
            )
            return "error", seconds
        self._failures.pop(key, None)
        if after is None:
            return "success", None
        return "success", min(after, self._jittered(settings.resync_seconds, settings.resync_jitter))

    def _jittered(self, seconds: float, share: float) -> float:
        return seconds * (1 + share * (2 * self._draw() - 1))
