"""Continuous batching over paged KV: decodes first, then prefill chunks, under one budget per step. Pure.

Out of pages, the request that ranks last gives its pages back and recomputes later. The clock is a parameter.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from math import inf

from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.contracts.sampling import Alternatives
from tandem_runtime.engine.admission import Admission
from tandem_runtime.engine.batching import BatchGate
from tandem_runtime.engine.budget import Allowance, PaceKeeper
from tandem_runtime.engine.counters import Counters
from tandem_runtime.engine.drafting import Drafting
from tandem_runtime.engine.estimate import StepEstimate
from tandem_runtime.engine.events import (
    Broken,
    Event,
    Finished,
    Output,
    PrefillDone,
    RemoteAbandoned,
    RemoteCommit,
    Reserved,
)
from tandem_runtime.engine.executor import Capacity, Plan, StepResult
from tandem_runtime.engine.limits import Queued, SchedulerSettings, refusal
from tandem_runtime.engine.request import Phase, Request, page_count
from tandem_runtime.engine.speculation import count_held
from tandem_runtime.engine.work import Drawn, Work, make_plan, take_apart


class Scheduler:
    """Requests by rank. Every request that was added ends exactly once."""

    def __init__(self, capacity: Capacity, settings: SchedulerSettings, emit: Callable[[Event], None]) -> None:
        self.capacity = capacity
        self.settings = settings
        self.counters = Counters()
        self.estimate = StepEstimate(capacity)
        self._pace = PaceKeeper(self.estimate)
        self.requests: dict[int, Request] = {}
        self._admission = Admission(capacity, settings, self.counters)
        self.blocks = self._admission.blocks
        self.keeps_prefixes = self._admission.keeps_prefixes
        self._waiting: list[Request] = []
        self._running: list[Request] = []
        self._emit = emit
        self._arrivals = 0
        size = min(settings.batch_requests, capacity.max_sequences)
        self._gate = BatchGate(settings.batching, size, settings.batch_wait_seconds)
        self.context_tokens = min(capacity.max_context_tokens, capacity.pages * capacity.page_tokens)
        self._drafting = Drafting(settings, capacity.page_tokens, self.context_tokens, self.counters)

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
        tokens = self.waiting_tokens
        queued = Queued(self.waiting, tokens, self.estimate.prefill_seconds(tokens, 0.0) if self._waiting else 0.0)
        refused = refusal(request, self.capacity.vocab_size, self.context_tokens, queued, self.settings, now)
        if refused:
            self.fail(request, *refused)
        elif not request.handoff and request.output_tokens >= request.sampling.max_tokens:
            self._finish(request, "length")
        else:
            self._arrivals += 1
            request.enter_line(now, self._arrivals)
            insort(self._waiting, request, key=_rank)

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
        if reason in (Reason.KV_CORRUPT, Reason.ENGINE_ERROR):
            self.blocks.forget(request.held)  # whatever is wrong with them, nobody else shall have it
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
        self._admission.free(request)
        request.phase = Phase.ENDED

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
        """When something is to be done though nothing happens; infinity when there are no requests."""
        ends = min((min(r.deadline, r.phase_deadline) for r in self.requests.values()), default=inf)
        return min(ends, self._gate.opens_at(self.running, self.waiting, self._oldest_since()))

    def _oldest_since(self) -> float:
        return min((r.since for r in self._waiting), default=inf)

    def compute_here(self, handle: int) -> None:
        """No KV comes from another pod for this request: its prompt is computed here, in the pages it has."""
        request = self.requests.get(handle)
        if request is not None and request.remote:
            request.remote = False
            self.counters.remote_fallbacks += 1
            if request.phase is Phase.REMOTE_KV:
                self._enter(request, Phase.PREFILL)

    def awaits(self, handle: int, ordinal: int, generation: int) -> int | None:
        """The page to write what came for page number `ordinal`; None (and counted) when it is stale, or was here
        before and may be others' too."""
        request = self.requests.get(handle)
        if request is not None and request.phase is Phase.REMOTE_KV and request.published <= ordinal:
            page = request.pages[ordinal] if ordinal < len(request.pages) else -1
            if page >= 0 and self.blocks.generation(page) == generation:
                return page
        self.counters.stale_pages += 1
        return None

    def commit(self, remote: RemoteCommit) -> None:
        """The KV of all given tokens is here: decoding goes on with the token that came with it."""
        request = self.requests.get(remote.handle)
        if request is None or request.phase is not Phase.REMOTE_KV:
            return
        request.kv_bytes_received = remote.bytes_received
        request.cached_tokens = max(request.cached_tokens or 0, remote.cached_tokens)
        self._admission.advance(request, len(request.tokens) - request.computed)
        self._enter(request, Phase.DECODE)
        self._append(request, [remote.first_token], [remote.logprob], [remote.alternatives])

    def _enter(self, request: Request, phase: Phase, deadline: float = inf) -> None:
        request.phase = phase
        request.phase_deadline = deadline

    def plan(self, now: float) -> list[Work]:
        """The next step. Reserves the pages that it writes."""
        work = [Work(r, 1, True) for r in self._decoding()]
        allowance = self._allow([w.request for w in work])
        for request in [r for r in self._running if r.phase is Phase.PREFILL]:
            self._add_chunk(work, request, allowance)
        while self._waiting and (self._waiting[0].remote or allowance.open):
            request = self._waiting[0]
            if not self._gate.opens(now, self.running, self.waiting, self._oldest_since()):
                break
            if not self._admit(request, now):
                break
            if request.phase is Phase.PREFILL:
                self._add_chunk(work, request, allowance)
        self._pace.settle(allowance, any(r.phase is Phase.PREFILL for r in self._running) or bool(self._waiting))
        if not self._waiting:
            self._gate.none_waits()
        return self._drafting.extend(work)

    def _allow(self, decoding: list[Request]) -> Allowance:
        settings = self.settings
        pace = min((min(r.tpot_seconds, settings.tpot_seconds) for r in decoding), default=inf)
        step_seconds = (
            0.0 if pace == inf else self.estimate.step_seconds(len(decoding), sum(r.computed for r in decoding))
        )
        tokens, sequences = settings.step_tokens - len(decoding), self.capacity.max_sequences - len(decoding)
        return self._pace.allow(tokens, sequences, settings.least_chunk_tokens, step_seconds, pace)

    def _decoding(self) -> list[Request]:
        ready: list[Request] = []
        for request in [r for r in self._running if r.phase is Phase.DECODE]:
            if request.phase is Phase.DECODE and self._extend(request):
                ready.append(request)
        return ready

    def _extend(self, request: Request) -> bool:
        """A page for the request's next token; whoever ranks last makes room, perhaps the request itself."""
        while page_count(len(request.tokens), self.capacity.page_tokens) > len(request.pages):
            if self.blocks.free:
                request.pages.extend(self.blocks.allocate(1))
                continue
            victim = next(r for r in reversed(self._running) if _gives_way(r))
            self._preempt(victim)
            if victim is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        self.counters.preempted += 1
        self._admission.free(request)
        self._running.remove(request)
        self._gate.returned()
        request.remote = False  # what was transferred is gone; it is computed here, never asked for again
        self._enter(request, Phase.QUEUED)
        insort(self._waiting, request, key=_rank)

    def _admit(self, request: Request, now: float) -> bool:
        """False when there is no room for it."""
        if not self._admission.reserve(request, self._running):
            return False
        self._waiting.remove(request)
        self._gate.joined()
        insort(self._running, request, key=_rank)
        self._start(request, now)
        return True

    def _start(self, request: Request, now: float) -> None:
        if request.queued_seconds is None:
            request.queued_seconds = now - request.since
        if request.remote:
            self._enter(request, Phase.REMOTE_KV, now + self.settings.remote_kv_seconds)
            pages = [(page, self.blocks.generation(page)) for page in request.pages]
            self._emit(Reserved(request.handle, pages, request.published))
        else:
            self._enter(request, Phase.PREFILL)

    def _add_chunk(self, work: list[Work], request: Request, allowance: Allowance) -> None:
        left = len(request.tokens) - request.computed
        tokens = allowance.grant(left, request.computed)
        if tokens < 1:
            return
        if self.settings.deterministic:
            tokens = self._fixed_chunk(request)
        self._admission.cover(request, tokens)
        work.append(Work(request, tokens, tokens == left))
        allowance.spend(tokens, request.computed)

    def _fixed_chunk(self, request: Request) -> int:
        """Prompt in whole chunks, later tokens one by one as when they were generated: the same numbers every time."""
        if request.computed >= request.prompt_tokens:
            return 1
        size = self.settings.chunk_tokens
        return min(size - request.computed % size, request.prompt_tokens - request.computed)

    def steps(self, work: list[Work]) -> Plan:
        """The plan as the executor takes it."""
        return make_plan(work, self.capacity.page_tokens)

    def apply(self, work: list[Work], result: StepResult, now: float) -> None:
        """Takes in what the executor computed."""
        for item, drawn in take_apart(work, result):
            request = item.request
            before = request.computed
            self._admission.advance(request, item.tokens - len(item.drafts))
            if request.phase is Phase.PREFILL:
                here = max(0, min(request.computed, request.given_tokens) - before)
                request.prefilled_here += here
                self.counters.prompt_tokens += here
            if item.samples:
                self._take(item, drawn, now)

    def _take(self, item: Work, drawn: Drawn, now: float) -> None:
        request, token = item.request, drawn.ids[0]
        if token is None:
            self.fail(request, Reason.ENGINE_ERROR, "the executor returned no token", True)
        elif request.handoff:
            self._enter(request, Phase.SENDING, now + self.settings.sending_seconds)
            cached = request.cached_tokens or 0
            done = (request.handle, token, drawn.logprobs[0] or 0.0, request.computed, cached, drawn.alternatives[0])
            self._emit(PrefillDone(*done, request.queued_seconds or 0.0))
        else:
            self._enter(request, Phase.DECODE)
            held = count_held(item.drafts, drawn.ids)
            taken = self._append(request, drawn.ids[: held + 1], drawn.logprobs, drawn.alternatives)
            self._drafting.learn(request, len(item.drafts), held, taken - 1)

    def _append(
        self,
        request: Request,
        ids: Sequence[int | None],
        logprobs: Sequence[float | None],
        alternatives: Sequence[Alternatives],
    ) -> int:
        """Output up to where the answer ends; of all but the last the KV is computed. Returns how many it took."""
        index, reason, out = request.output_tokens, "", list[int]()
        for token in ids:
            if token is None or reason:
                break
            request.tokens.append(token)
            out.append(token)
            reason = self._end_reason(request, token)
        taken = len(out)
        if taken > 1:
            self._admission.advance(request, taken - 1)
        self.counters.output_tokens += taken
        certain = [logprob or 0.0 for logprob in logprobs[:taken]]
        origin = (request.prefilled_here, request.kv_bytes_received, request.cached_tokens or 0)
        others = list(alternatives[:taken])
        self._emit(Output(request.handle, index, out, certain, *origin, others, request.queued_seconds or 0.0))
        if reason:
            self._finish(request, reason)
        return taken

    def _end_reason(self, request: Request, token: int) -> str:
        """Why `token`, its last one, ends the answer; empty when it goes on."""
        sampling = request.sampling
        if token in sampling.stop_token_ids or (token in self.capacity.eos_token_ids and not sampling.ignore_eos):
            return "stop"
        full = request.output_tokens >= sampling.max_tokens or len(request.tokens) >= self.context_tokens
        return "length" if full else ""

    def leaked_pages(self) -> int:
        """Pages whose books are wrong (BlockPool.leaked); 0 when each reference is that of a request inside."""
        return self.blocks.leaked(r.held for r in self.requests.values())


def _rank(request: Request) -> tuple[float, int]:
    return request.rank


def _gives_way(request: Request) -> bool:
    """Pages that another pod writes or reads stay where they are."""
    return request.phase is Phase.DECODE or (request.phase is Phase.PREFILL and not request.handoff)
