"""The event loop's side of the engine: hands commands in and each event to the one who opened its request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from tandem_runtime.contracts.hashing import prompt_digest
from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.events import Abort, Add, Broken, Command, Event, Finished, PagesComputed, PagesTaken, Parts
from tandem_runtime.engine.executor import Capacity, Executor
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.loop import Engine
from tandem_runtime.engine.prefixes import PrefixHashes
from tandem_runtime.engine.request import Request

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hurry:
    """What was promised to a request: higher priority first, first token within `objective_seconds` from now, each
    further one within `tpot_seconds`."""

    priority: int = 0
    objective_seconds: float = inf
    tpot_seconds: float = inf


NO_HURRY = Hurry()


class EventSink(Protocol):
    """Whoever opened a request."""

    def on_event(self, event: Event) -> None:
        """Called in the event loop, in order; Finished and Broken come last."""


class EngineClient:
    """Use from one event loop."""

    def __init__(self, executor: Executor, settings: SchedulerSettings) -> None:
        self.engine = Engine(executor, settings, self._receive)
        self.capacity: Capacity
        self.after_batch: list[Callable[[], None]] = []
        """Called after each batch of events: one write per connection and step."""
        self.prefix_key: Callable[[], bytes] = bytes
        """Of the deployment, at this moment: the chain hashes of pages are keyed by it."""
        self._sinks: dict[int, EventSink] = {}
        self._next_handle = 1
        self._loop = asyncio.get_running_loop()

    async def load(self) -> Capacity:
        """Raises ModelError, or whatever else the executor's load raised."""
        self.engine.start()
        self.capacity = await asyncio.wrap_future(self.engine.loaded)
        return self.capacity

    @property
    def context_tokens(self) -> int:
        """Longest sequence that can be served here."""
        return self.engine.scheduler.context_tokens

    @property
    def open_requests(self) -> int:
        """Requests that have not ended."""
        return len(self._sinks)

    def open(
        self,
        sink: EventSink,
        prompt_ids: Sequence[int],
        emitted_ids: Sequence[int],
        sampling: Sampling,
        remaining_seconds: float,
        *,
        remote: bool = False,
        handoff: bool = False,
        salt: bytes = b"",
        hurry: Hurry = NO_HURRY,
        skip_pages: int = 0,
    ) -> int:
        """The request's handle. A refusal comes as a Broken event. `salt`: only requests with the same share pages.
        `skip_pages`: of a hand-off, so many pages at the beginning are not handed out."""
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._sinks[handle] = sink
        now = self._loop.time()
        inside = all(0 <= token < 1 << 32 for token in prompt_ids)
        request = Request(
            handle=handle,
            tokens=[*prompt_ids, *emitted_ids],
            prompt_tokens=len(prompt_ids),
            sampling=sampling,
            deadline=now + remaining_seconds,
            prompt_digest=prompt_digest(prompt_ids) if inside else 0,
            remote=remote,
            handoff=handoff,
            pages_told=skip_pages,
            priority=hurry.priority,
            objective=now + hurry.objective_seconds,
            tpot_seconds=hurry.tpot_seconds,
            prefixes=self._prefixes(salt) if inside else None,
        )
        self.engine.send(Add(request))
        return handle

    def _prefixes(self, salt: bytes) -> PrefixHashes | None:
        if not self.engine.scheduler.keeps_prefixes:
            return None
        return PrefixHashes(self.prefix_key(), salt, self.capacity.page_tokens)

    def send(self, command: Command) -> None:
        """For a request that is open."""
        self.engine.send(command)

    def taken(self, payloads: Iterable[Parts]) -> None:
        """Payloads of PagesComputed that are sent, or not wanted any more."""
        self.engine.send(PagesTaken(sum(len(part) for payload in payloads for _, _, part in payload)))

    def close(self, handle: int) -> None:
        """Ends a request; no more events of it come. Idempotent."""
        if self._sinks.pop(handle, None) is not None:
            self.engine.send(Abort(handle))

    def _receive(self, events: list[Event]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._dispatch, events)

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            ends = isinstance(event, Finished | Broken)
            sink = self._sinks.pop(event.handle, None) if ends else self._sinks.get(event.handle)
            if sink is not None:
                self._hand_over(sink, event)
            elif isinstance(event, PagesComputed):
                self.taken(event.payloads)
        for call in self.after_batch:
            call()

    def _hand_over(self, sink: EventSink, event: Event) -> None:
        """A request whose owner cannot take its event ends; the others of the batch do not suffer."""
        try:
            sink.on_event(event)
        except Exception as error:
            log.exception("event %s was not taken", type(event).__name__)
            self.close(event.handle)
            if not isinstance(event, Broken):
                words = f"{type(error).__name__}: {error}"
                sink.on_event(Broken(event.handle, Reason.ENGINE_ERROR, words, retryable=True))
