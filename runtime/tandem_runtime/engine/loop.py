"""The engine thread: drains its inbox, plans, executes, and hands out the events of a step in one batch.

It alone touches scheduler and executor. A step that fails ends the requests in it, not the engine.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from tandem_runtime.contracts.coefficients import Coefficients
from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.engine.events import (
    Abort,
    Add,
    Command,
    Event,
    PagesAgain,
    PagesComputed,
    PagesTaken,
    Parts,
    RemoteCommit,
    RemoteFailed,
    RemotePage,
)
from tandem_runtime.engine.executor import Capacity, Executor, SequenceError
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.request import Phase
from tandem_runtime.engine.scheduler import Scheduler
from tandem_runtime.engine.warm_up import warm_up
from tandem_runtime.engine.work import Work

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""Longest sleep without a look at deadlines and, when empty, at the books."""
CHECK_SECONDS = 0.5
"""Between two looks at the books of an idle engine: they cost a walk over all pages."""
FATAL_FAILURES = 3
"""Steps in a row that fail before the engine gives up: the device is gone, a restart is the remedy."""
RECENT_ITERATIONS = 256
UNTAKEN_BYTES = 16 << 20
"""Bytes of computed pages that may wait for the network; the others stay where they are until there is room."""
BATCH_BYTES = 1 << 20
"""Of pages that are handed out together: less costs wake-ups, more makes the network wait."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """One step, for calibration: decoding sequences, their KV tokens, prompt tokens computed, seconds.

    `prefill_attended`: over the prompt tokens, the tokens that each attends to; n (context + n / 2) of one chunk.
    `rows`: of the decoding sequences, their drafts included.
    """

    n: int
    kv_tokens: int
    prefill_tokens: int
    seconds: float
    prefill_attended: float = 0.0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class EngineState:
    """A copy of the scheduler's figures, safe to read from any thread; replaced after every step."""

    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    used_pages: int = 0
    total_pages: int = 0
    cached_pages: int = 0
    """Free ones that hold a prefix."""
    leaked_pages: int = 0
    oldest_seconds: float = 0.0
    phases: dict[str, int] | None = None
    coefficients: Coefficients | None = None
    """What steps take, as far as they have told."""


class Engine:
    """Runs `executor` in a thread of its own. `emit` is called in that thread with one batch of events per step."""

    def __init__(
        self,
        executor: Executor,
        settings: SchedulerSettings,
        emit: Callable[[list[Event]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loaded: Future[Capacity] = Future()
        self.ended: Future[None] = Future()
        """Done when the thread is over; carries the exception when the engine gave up."""
        self.state = EngineState()
        self.turned_at = clock()
        """When the loop last went round, on `clock`: how a stuck device shows."""
        self.taken_bytes = 0
        """Payload of remote pages that left the inbox, cumulative: what is handed in minus this is still in memory."""
        self.iterations: deque[Iteration] = deque(maxlen=RECENT_ITERATIONS)
        self.iterations_total = 0
        self._executor = executor
        self.settings = settings
        self._emit_batch = emit
        self._clock = clock
        self._inbox: SimpleQueue[Command | None] = SimpleQueue()
        self._events: list[Event] = []
        self._failures = 0
        self.untaken_bytes = 0
        """Of computed pages that are handed out and neither sent nor thrown away."""
        self._checked = (0, -CHECK_SECONDS)
        """Requests that had come when the books were looked at last, and when that was."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.scheduler: Scheduler

    def start(self) -> None:
        """Loads the model in the engine's thread; `loaded` tells when, or why not."""
        for future in (self.loaded, self.ended):
            future.set_running_or_notify_cancel()  # who waits may give up; the thread can still set them
        self._thread.start()

    def send(self, command: Command) -> None:
        """From any thread."""
        self._inbox.put(command)

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Ends the thread after the step that runs now; requests inside end without an event."""
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            capacity = self._executor.load()
            self.scheduler = Scheduler(capacity, self.settings, self._events.append)
            if self.settings.warm_up:
                warm_up(self._executor, capacity, self.scheduler.estimate)
            self._publish()
        except BaseException as error:
            self.loaded.set_exception(error)
            self.ended.set_result(None)
            return
        self.loaded.set_result(capacity)
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:
            log.exception("the engine gave up")
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)
        finally:
            self._executor.close()

    def _turn(self) -> None:
        self._drain(block=not self._busy())
        now = self.turned_at = self._clock()
        self.scheduler.expire(now)
        work = self.scheduler.plan(now)
        if work:
            self._step(work)
        self._tell_pages()
        self._publish()
        self._hand_out()

    def _hand_out(self) -> None:
        if self._events:
            batch, self._events[:] = list(self._events), []
            self._emit_batch(batch)

    def _busy(self) -> bool:
        return any(r.phase in (Phase.PREFILL, Phase.DECODE) for r in self.scheduler.requests.values())

    def _drain(self, block: bool) -> None:
        try:
            if block:
                wait = min(IDLE_SECONDS, max(0.001, self.scheduler.next_deadline() - self._clock()))
                self._handle(self._inbox.get(timeout=wait))
            while True:
                self._handle(self._inbox.get_nowait())
        except Empty:
            return

    def _handle(self, command: Command | None) -> None:
        match command:
            case None:
                self._stopping = True
            case Add(request):
                self.scheduler.add(request, self._clock())
            case Abort(handle):
                self.scheduler.abort(handle)
            case RemotePage():
                self._write(command)
            case RemoteCommit():
                self.scheduler.commit(command)
            case PagesTaken(payload_bytes):
                self.untaken_bytes -= payload_bytes
            case PagesAgain(handle, ordinals):
                self._tell_again(handle, ordinals)
            case RemoteFailed(handle):
                self.scheduler.compute_here(handle)

    def _write(self, frame: RemotePage) -> None:
        self.taken_bytes += len(frame.payload)
        page = self.scheduler.awaits(frame.handle, frame.ordinal, frame.generation)
        if page is None:
            return
        try:
            self._executor.write_pages([page], frame.layer_first, frame.layer_end, [memoryview(frame.payload)])
        except ValueError as error:
            request = self.scheduler.requests[frame.handle]
            self.scheduler.fail(request, Reason.KV_CORRUPT, str(error), retryable=True)

    def _step(self, work: list[Work]) -> None:
        try:
            result = self._executor.execute(self.scheduler.steps(work))
        except SequenceError as error:
            log.error("a sequence failed: %s", error)
            self.scheduler.fail(work[error.index].request, Reason.KV_CORRUPT, str(error), retryable=True)
            return
        except Exception as error:
            self._failures += 1
            log.exception("a step of %d sequences failed", len(work))
            for item in work:
                text = f"the step failed: {type(error).__name__}: {error}"
                self.scheduler.fail(item.request, Reason.ENGINE_ERROR, text, retryable=True)
            if self._failures >= FATAL_FAILURES:
                self._emit_batch(list(self._events))
                raise
            return
        self._failures = 0
        iteration = measure(work, result.seconds)
        self.iterations.append(iteration)
        self.iterations_total += 1
        self.scheduler.estimate.learn(
            iteration.rows, iteration.kv_tokens, iteration.prefill_tokens, iteration.prefill_attended, iteration.seconds
        )
        self.scheduler.apply(work, result, self._clock())

    def _tell_pages(self) -> None:
        """Hands out the bytes of pages that are complete; the last one of a request may be filled in part."""
        page_tokens, told_bytes = self.scheduler.capacity.page_tokens, self.untaken_bytes
        for request in self.scheduler.requests.values():
            if not request.handoff:
                continue
            whole = request.computed == len(request.tokens)
            done = len(request.pages) if whole else request.computed // page_tokens
            while request.pages_told < done and self.untaken_bytes < UNTAKEN_BYTES:
                payload = self._read(request.pages[request.pages_told])
                self.untaken_bytes += sum(len(part) for _, _, part in payload)
                self._events.append(PagesComputed(request.handle, request.pages_told, [payload]))
                request.pages_told += 1
                if self.untaken_bytes >= told_bytes + BATCH_BYTES:
                    told_bytes = self.untaken_bytes
                    self._hand_out()  # the network starts while the next pages are read

    def _tell_again(self, handle: int, ordinals: list[int]) -> None:
        """Only pages that were told before, of a request that is still here: they are held, so they are unchanged."""
        request = self.scheduler.requests.get(handle)
        for ordinal in ordinals:
            if request is not None and 0 <= ordinal < request.pages_told:
                payload = self._read(request.pages[ordinal])
                self.untaken_bytes += sum(len(part) for _, _, part in payload)
                self._events.append(PagesComputed(handle, ordinal, [payload]))

    def _read(self, page: int) -> Parts:
        layout = self.scheduler.capacity.layout
        group = layers_per_frame(layout.layers, layout.page_bytes)
        parts: Parts = []
        for first in range(0, layout.layers, group):
            end = min(first + group, layout.layers)
            view = self._executor.read_pages([page], first, end)[0]
            parts.append((first, end, view))
        return parts

    def _publish(self) -> None:
        scheduler = self.scheduler
        now = self._clock()
        requests = scheduler.requests.values()
        phases: dict[str, int] = {}
        for request in requests:
            phases[request.phase] = phases.get(request.phase, 0) + 1
        self.state = EngineState(
            running=scheduler.running,
            waiting=scheduler.waiting,
            waiting_tokens=scheduler.waiting_tokens,
            used_pages=scheduler.blocks.used,
            total_pages=scheduler.blocks.total,
            cached_pages=scheduler.blocks.cached,
            leaked_pages=self._leaked_pages(now),
            oldest_seconds=max((now - r.since for r in requests), default=0.0),
            phases=phases,
            coefficients=scheduler.estimate.coefficients(),
        )

    def _leaked_pages(self, now: float) -> int:
        """Looked up when the engine is idle and something has happened since the last time."""
        added, checked_at = self.scheduler.counters.added, self._checked[1]
        if self.scheduler.requests or added == self._checked[0] or now < checked_at + CHECK_SECONDS:
            return self.state.leaked_pages
        self._checked = (added, now)
        leaked = self.scheduler.leaked_pages()
        if leaked:
            log.error("the books of %d pages are wrong though no request is inside", leaked)
        return leaked


def measure(work: list[Work], seconds: float) -> Iteration:
    """What a step did; to be called before its result is applied."""
    decoding = [w.request.computed for w in work if w.request.phase is Phase.DECODE]
    rows = len(decoding) + sum(len(w.drafts) for w in work)
    prompts = [(w.tokens, w.request.computed) for w in work if w.request.phase is Phase.PREFILL]
    attended = sum(tokens * (context + tokens / 2) for tokens, context in prompts)
    return Iteration(len(decoding), sum(decoding), sum(tokens for tokens, _ in prompts), seconds, attended, rows)


def layers_per_frame(layers: int, page_bytes: int, max_frame_bytes: int = 16 << 20) -> int:
    """As many layers of one page as fit a frame; at least one."""
    return max(1, min(layers, max_frame_bytes * layers // max(1, page_bytes)))
