"""Continuous batching over paged KV: decodes first, then prefill chunks, under one token budget per step. Pure.

Out of pages, the newest decoding request gives its pages back and recomputes later. The clock is a parameter.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass

from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.engine.blocks import BlockPool
from tandem_runtime.engine.events import Broken, Event, Finished, Output, PrefillDone, RemoteAbandoned, Reserved
from tandem_runtime.engine.executor import Capacity, Plan, SequenceStep, StepResult
from tandem_runtime.engine.limits import SchedulerSettings, refusal
from tandem_runtime.engine.request import Phase, Request, page_count


@dataclass(slots=True)
class Counters:
    """Cumulative since start; added == finished + aborted + failed + those that are inside."""

    added: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    preempted: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    stale_pages: int = 0
    remote_fallbacks: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """One request's part of a step."""

    request: Request
    tokens: int
    samples: bool


class Scheduler:
    """Requests in order of arrival. Every request that was added ends exactly once."""

    def __init__(self, capacity: Capacity, settings: SchedulerSettings, emit: Callable[[Event], None]) -> None:
        self.capacity = capacity
        self.settings = settings
        self.blocks = BlockPool(capacity.pages)
        self.counters = Counters()
        self.requests: dict[int, Request] = {}
        self._waiting: list[Request] = []
        self._running: list[Request] = []
        self._emit = emit
        self._arrivals = 0
        self._watermark = int(capacity.pages * settings.free_page_share)
        self.context_tokens = min(capacity.max_context_tokens, capacity.pages * capacity.page_tokens)

    @property
    def running(self) -> int:
        """Requests that hold pages."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests that hold none yet."""
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens still to be computed here, of waiting and of running requests."""
        pending = sum(r.given_tokens - r.computed for r in self._running if r.phase is Phase.PREFILL)
        return pending + sum(len(r.tokens) for r in self._waiting)

    def add(self, request: Request, now: float) -> None:
        """Takes the request in, or refuses it at once when it can never be served or the queue is full."""
        self.counters.added += 1
        self.requests[request.handle] = request
        queued = (self.waiting, self.waiting_tokens)
        refused = refusal(request, self.capacity.vocab_size, self.context_tokens, queued, self.settings)
        if refused:
            self.fail(request, *refused)
        elif not request.handoff and request.output_tokens >= request.sampling.max_tokens:
            self._finish(request, "length")
        else:
            self._arrivals += 1
            request.order, request.since = self._arrivals, now
            insort(self._waiting, request, key=_order)

    def abort(self, handle: int) -> None:
        """Ends a request without an event. Idempotent."""
        request = self.requests.get(handle)
        if request is not None:
            if request.phase is Phase.SENDING:
                self.counters.finished += 1  # computed and handed out: how it went on is the receiver's story
            else:
                self.counters.aborted += 1
            self._end(request)

    def fail(self, request: Request, reason: Reason, message: str, retryable: bool) -> None:
        """Ends a request with an error."""
        self.counters.failed += 1
        self._emit(Broken(request.handle, reason, message, retryable))
        self._end(request)

    def _finish(self, request: Request, reason: str) -> None:
        self.counters.finished += 1
        self._emit(Finished(request.handle, reason))
        self._end(request)

    def _end(self, request: Request) -> None:
        del self.requests[request.handle]
        for group in (self._waiting, self._running):
            if request in group:
                group.remove(request)
        self._free(request)
        request.phase = Phase.ENDED

    def _free(self, request: Request) -> None:
        self.blocks.release(request.pages)
        request.pages = []
        request.computed = 0

    def expire(self, now: float) -> None:
        """Ends what is beyond its deadline; a wait for another pod's KV turns into local work instead."""
        for request in [r for r in self.requests.values() if min(r.deadline, r.phase_deadline) <= now]:
            if request.phase is Phase.SENDING:
                self.fail(request, Reason.TIMEOUT, "the receiver did not acknowledge the pages in time", False)
            elif request.deadline <= now:
                text = f"the request's time was up after {now - request.since:.1f} s, in phase {request.phase}"
                self.fail(request, Reason.TIMEOUT, text, False)
            elif request.phase is Phase.REMOTE_KV:
                self._emit(RemoteAbandoned(request.handle))
                self.compute_here(request.handle)

    def next_deadline(self) -> float:
        """Of all requests; infinity when there are none."""
        return min((min(r.deadline, r.phase_deadline) for r in self.requests.values()), default=float("inf"))

    def compute_here(self, handle: int) -> None:
        """No KV comes from another pod for this request: its prompt is computed here, in the pages it has."""
        request = self.requests.get(handle)
        if request is not None and request.remote:
            request.remote = False
            self.counters.remote_fallbacks += 1
            if request.phase is Phase.REMOTE_KV:
                self._enter(request, Phase.PREFILL)

    def awaits(self, handle: int, ordinal: int, generation: int) -> int | None:
        """The page to write what came for page number `ordinal`; None (and counted) when it is stale."""
        request = self.requests.get(handle)
        if request is not None and request.phase is Phase.REMOTE_KV and 0 <= ordinal < len(request.pages):
            page = request.pages[ordinal]
            if self.blocks.generation(page) == generation:
                return page
        self.counters.stale_pages += 1
        return None

    def commit(self, handle: int, first_token: int, logprob: float, bytes_received: int) -> None:
        """The KV of all given tokens is here: decoding goes on with `first_token`."""
        request = self.requests.get(handle)
        if request is None or request.phase is not Phase.REMOTE_KV:
            return
        request.kv_bytes_received = bytes_received
        request.computed = len(request.tokens)
        self._enter(request, Phase.DECODE)
        self._append(request, first_token, logprob)

    def _enter(self, request: Request, phase: Phase, deadline: float = float("inf")) -> None:
        request.phase = phase
        request.phase_deadline = deadline

    def plan(self, now: float) -> list[Work]:
        """The next step. Reserves the pages that it writes."""
        work = [Work(r, 1, True) for r in self._decoding()]
        budget = self.settings.step_tokens - len(work)
        sequences = self.capacity.max_sequences - len(work)
        for request in [r for r in self._running if r.phase is Phase.PREFILL]:
            budget, sequences = self._add_chunk(work, request, budget, sequences)
        while self._waiting and (self._waiting[0].remote or (budget > 0 and sequences > 0)):
            request = self._waiting[0]
            if not self._admit(request, now):
                break
            if request.phase is Phase.PREFILL:
                budget, sequences = self._add_chunk(work, request, budget, sequences)
        return work

    def _decoding(self) -> list[Request]:
        ready: list[Request] = []
        for request in [r for r in self._running if r.phase is Phase.DECODE]:
            if request.phase is Phase.DECODE and self._extend(request):
                ready.append(request)
        return ready

    def _extend(self, request: Request) -> bool:
        """A page for the request's next token; the newest decoding request makes room, perhaps the request itself."""
        while page_count(len(request.tokens), self.capacity.page_tokens) > len(request.pages):
            if self.blocks.free:
                request.pages.extend(self.blocks.allocate(1))
                continue
            victim = [r for r in self._running if r.phase is Phase.DECODE][-1]
            self._preempt(victim)
            if victim is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        self.counters.preempted += 1
        self._free(request)
        self._running.remove(request)
        request.remote = False
        self._enter(request, Phase.QUEUED)
        insort(self._waiting, request, key=_order)

    def _admit(self, request: Request, now: float) -> bool:
        """Reserves all pages that the request's tokens need, and room for the next token."""
        extra = 0 if request.handoff else 1
        wanted = page_count(len(request.tokens) + extra, self.capacity.page_tokens)
        keep = self._watermark if self._running else 0
        active = sum(1 for r in self._running if r.phase is not Phase.SENDING)
        if active >= self.capacity.max_sequences or self.blocks.free < wanted + keep:
            return False
        self._waiting.remove(request)
        request.pages = self.blocks.allocate(wanted)
        insort(self._running, request, key=_order)
        if request.remote:
            self._enter(request, Phase.REMOTE_KV, now + self.settings.remote_kv_seconds)
            pages = [(page, self.blocks.generation(page)) for page in request.pages]
            self._emit(Reserved(request.handle, pages))
        else:
            self._enter(request, Phase.PREFILL)
        return True

    def _add_chunk(self, work: list[Work], request: Request, budget: int, sequences: int) -> tuple[int, int]:
        if budget < 1 or sequences < 1:
            return budget, sequences
        left = len(request.tokens) - request.computed
        tokens = self._fixed_chunk(request) if self.settings.deterministic else min(left, budget)
        work.append(Work(request, tokens, tokens == left))
        return budget - tokens, sequences - 1

    def _fixed_chunk(self, request: Request) -> int:
        """Prompt in whole chunks, later tokens one by one as when they were generated: the same numbers every time."""
        if request.computed >= request.prompt_tokens:
            return 1
        size = self.settings.chunk_tokens
        return min(size - request.computed % size, request.prompt_tokens - request.computed)

    def steps(self, work: list[Work]) -> Plan:
        """The plan as the executor takes it."""
        return Plan([self._step(item) for item in work])

    def _step(self, item: Work) -> SequenceStep:
        request, position = item.request, item.request.computed
        end = position + item.tokens
        sampling = request.sampling if item.samples else None
        pages = request.pages[: page_count(end, self.capacity.page_tokens)]
        ids = request.tokens[position:end]
        return SequenceStep(ids, position, pages, sampling, end - request.prompt_tokens, request.prompt_digest)

    def apply(self, work: list[Work], result: StepResult, now: float) -> None:
        """Takes in what the executor computed."""
        for item, token, logprob in zip(work, result.ids, result.logprobs, strict=True):
            request = item.request
            request.computed += item.tokens
            if request.phase is Phase.PREFILL:
                before = request.computed - item.tokens
                here = max(0, min(request.computed, request.given_tokens) - before)
                request.prefilled_here += here
                self.counters.prompt_tokens += here
            if not item.samples:
                continue
            if token is None:
                self.fail(request, Reason.ENGINE_ERROR, "the executor returned no token", True)
            elif request.handoff:
                self._enter(request, Phase.SENDING, now + self.settings.sending_seconds)
                self._emit(PrefillDone(request.handle, token, logprob or 0.0, request.computed))
            else:
                self._enter(request, Phase.DECODE)
                self._append(request, token, logprob or 0.0)

    def _append(self, request: Request, token: int, logprob: float) -> None:
        index = request.output_tokens
        request.tokens.append(token)
        self.counters.output_tokens += 1
        origin = (request.prefilled_here, request.kv_bytes_received)
        self._emit(Output(request.handle, index, [token], [logprob], *origin))
        if token in self.capacity.eos_token_ids and not request.sampling.ignore_eos:
            self._finish(request, "stop")
        elif request.output_tokens >= request.sampling.max_tokens or len(request.tokens) >= self.context_tokens:
            self._finish(request, "length")

    def leaked_pages(self) -> int:
        """Pages whose references are not those of the requests that are inside; 0 when the books are right."""
        return self.blocks.leaked(r.pages for r in self.requests.values())


def _order(request: Request) -> int:
    return request.order
