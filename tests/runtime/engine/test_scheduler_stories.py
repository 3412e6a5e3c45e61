"""Any sequence of arrivals, aborts, steps, failures and KV events keeps the scheduler's promises."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tandem_runtime.contracts.kv_protocol import Layout
from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.batching import Batching
from tandem_runtime.engine.events import Broken, Event, Finished, Output, PrefillDone, RemoteCommit, Reserved
from tandem_runtime.engine.executor import GONE, Capacity, StepResult, first_page
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.prefixes import PrefixHashes
from tandem_runtime.engine.request import Phase, Request
from tandem_runtime.engine.scheduler import Scheduler
from tandem_runtime.engine.work import Work

PAGE = 32
CAPACITY = Capacity(
    pages=8,
    page_tokens=PAGE,
    max_sequences=4,
    max_context_tokens=10_000,
    vocab_size=100,
    eos_token_ids=frozenset({99}),
    layout=Layout(1, 1, 1, PAGE, "none", 16),
    compat_hash="x",
)
NEWCOMERS = st.tuples(
    st.integers(1, 150) | st.integers(100, 420),
    st.integers(0, 1),
    st.integers(1, 60),
    st.integers(-1, 1),
    st.sampled_from([0.1, 5.0, float("inf")]),
    st.sampled_from(["local", "local", "remote", "handoff"]),
)
"""Prompt tokens, which of two kinds they are, output tokens, priority, objective, whence the KV comes."""
STUCK_STEPS = 400
"""The longest request needs 256 steps alone in the pool; whoever ranks first must be through by then."""


REMOTE_TOKEN = 7
"""The first one of an answer whose KV came from another pod."""


def token_at(output_index: int) -> int:
    """Repeats itself, and every now and then does not."""
    return 50 + output_index if output_index % 11 == 0 else 20 + output_index % 3


class SchedulerMachine(RuleBasedStateMachine):
    """Content of pages is kept beside the scheduler: what a step reads must be what was written for its tokens."""

    @initialize(
        pages=st.integers(5, 16),
        headroom=st.sampled_from([0, 64]),
        deterministic=st.booleans(),
        batching=st.sampled_from(list(Batching)),
        window=st.sampled_from([0, 40, 96]),
        drafts=st.sampled_from([0, 5, 40]),
    )
    def start(
        self, pages: int, headroom: int, deterministic: bool, batching: Batching, window: int, drafts: int
    ) -> None:
        self.events: list[Event] = []
        options = SchedulerSettings(
            step_tokens=48,
            chunk_tokens=64,
            free_page_share=0.0,
            headroom_tokens=headroom,
            remote_kv_seconds=3.0,
            deterministic=deterministic,
            draft_tokens=drafts,
            speculative_rows=40,
            batching=batching,
            batch_requests=2,
            batch_wait_seconds=0.5,
        )
        self.window = window
        capacity = replace(CAPACITY, pages=pages, window_tokens=window)
        self.scheduler = Scheduler(capacity, options, self.events.append)
        self.now = 0.0
        self.handles = 0
        self.page_holds: dict[int, list[tuple[int, int]]] = {}
        """Place and token: KV depends on both."""

    @rule(newcomers=st.lists(NEWCOMERS, min_size=3, max_size=6), steps=st.integers(0, 9))
    def add(self, newcomers: list[tuple[int, int, int, int, float, str]], steps: int) -> None:
        for prompt, kind, max_tokens, priority, objective, way in newcomers:
            self.handles += 1
            request = Request(
                handle=self.handles,
                tokens=[kind] * prompt,
                prompt_tokens=prompt,
                sampling=Sampling(max_tokens),
                deadline=self.now + 60.0,
                prompt_digest=kind,
                remote=way == "remote",
                handoff=way == "handoff",
                priority=priority,
                objective=self.now + objective,
                prefixes=PrefixHashes(b"key", b"", PAGE),
            )
            self.scheduler.add(request, self.now)
        self.step(steps, 0.0)

    def _pick(self, number: int, *phases: Phase) -> Request | None:
        inside = [r for r in self.scheduler.requests.values() if r.phase in phases]
        return inside[number % len(inside)] if inside else None

    @precondition(lambda self: len(self.scheduler.requests) > 2)
    @rule(number=st.integers(0, 20), ends=st.sampled_from(["abort", "abort", "break", "expire"]))
    def one_or_all_end(self, number: int, ends: str) -> None:
        if ends == "abort" and (request := self._pick(number, *Phase)):
            self.scheduler.abort(request.handle)
            self.scheduler.abort(request.handle)
        elif ends == "break" and (work := self.scheduler.plan(self.now)):
            request = work[number % len(work)].request
            self.scheduler.fail(request, Reason.ENGINE_ERROR, "a step failed", retryable=True)
        elif ends == "expire":
            self.now += 4.0 if number < 20 else 61.0
            self.scheduler.expire(self.now)

    @precondition(lambda self: self._pick(0, Phase.REMOTE_KV))
    @rule(number=st.integers(0, 20), ok=st.booleans())
    def kv_arrives_or_does_not(self, number: int, ok: bool) -> None:
        request = self._pick(number, Phase.REMOTE_KV)
        if request is None:
            return
        if not ok:
            self.scheduler.compute_here(request.handle)
            return
        reserved = next(e for e in self.events if isinstance(e, Reserved) and e.handle == request.handle)
        for ordinal, (page, generation) in enumerate(reserved.pages):
            written = self.scheduler.awaits(request.handle, ordinal, generation)
            assert (written is None) == (ordinal < reserved.have_pages)
            assert self.scheduler.awaits(request.handle, ordinal, generation + 1) is None
            if written is not None:
                first, tokens = ordinal * PAGE, request.tokens[ordinal * PAGE : (ordinal + 1) * PAGE]
                self.page_holds[page] = list(enumerate(tokens, first))
        self.scheduler.commit(RemoteCommit(request.handle, REMOTE_TOKEN, 0.0, 1))

    @rule(steps=st.integers(1, 30), seconds=st.sampled_from([0.0, 0.01, 0.7]))
    def step(self, steps: int, seconds: float) -> None:
        for _ in range(steps):
            self._step()
            self.now += seconds

    def _step(self) -> list[Work]:
        self.scheduler.expire(self.now)
        work = self.scheduler.plan(self.now)
        written = [page for item in work for page in self._run(item)]
        assert len(written) == len(set(written)), "two requests wrote the same page"
        steps = self.scheduler.steps(work).sequences
        ids = [None if s.sampling is None else token_at(s.output_index + row) for s in steps for row in range(s.rows)]
        self.scheduler.apply(work, StepResult(list(ids), [0.0] * len(ids), 0.0), self.now)
        return work

    def _run(self, item: Work) -> set[int]:
        """Compares what the pages in the window hold with the request's tokens, then writes the new ones."""
        request, start = item.request, item.request.computed
        assert len(request.held) <= self.scheduler.capacity.pages
        assert len(request.pages) * PAGE >= start + item.tokens
        touched = set()
        assert GONE not in request.pages[first_page(start, self.window, PAGE) :]
        tokens = [*request.tokens[: start + item.tokens - len(item.drafts)], *item.drafts]
        first = first_page(start, self.window, PAGE)
        if request.phase is Phase.DECODE:
            assert len(request.held) <= len(request.pages) - first
        for position in range(first * PAGE, start + item.tokens):
            ordinal, slot = divmod(position, PAGE)
            page = request.pages[ordinal]
            if position >= start:
                touched.add(page)
                assert self.scheduler.blocks.holders(page) == 1, "a page that is shared was written"
                held = [] if slot == 0 else self.page_holds[page][:slot]
                self.page_holds[page] = [*held, (position, tokens[position])]
            else:
                assert self.page_holds[page][slot] == (position, tokens[position]), "another sequence's KV"
        return touched

    @invariant()
    def books_are_right(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        scheduler, counters = self.scheduler, self.scheduler.counters
        assert scheduler.leaked_pages() == 0
        inside = len(scheduler.requests)
        assert counters.added == counters.finished + counters.aborted + counters.failed + inside
        assert inside == scheduler.running + scheduler.waiting
        ends = [e.handle for e in self.events if isinstance(e, Finished | Broken)]
        assert len(ends) == len(set(ends)), "a request ended twice"

    def teardown(self) -> None:
        """Whoever is inside comes through, in a bounded number of steps and in order of rank; then nothing is held."""
        if not hasattr(self, "scheduler"):
            return
        scheduler = self.scheduler
        for _ in range(STUCK_STEPS * (len(scheduler.requests) + 1)):
            for request in [r for r in scheduler.requests.values() if r.phase in (Phase.REMOTE_KV, Phase.SENDING)]:
                if request.phase is Phase.SENDING:
                    scheduler.abort(request.handle)
                else:
                    scheduler.compute_here(request.handle)
            if not scheduler.requests:
                break
            self._step()
            self.now += 0.001
        assert not scheduler.requests, "somebody starves"
        assert scheduler.blocks.used == 0
        self.books_are_right()
        for handle in range(1, self.handles + 1):
            outputs = [e for e in self.events if isinstance(e, Output) and e.handle == handle]
            indices = [e.output_index + number for e in outputs for number in range(len(e.ids))]
            assert indices == list(range(len(indices))), "nothing twice, nothing lost"
            assert [token for e in outputs for token in e.ids if token != REMOTE_TOKEN] == [
                token_at(index) for index in indices if not (index == 0 and outputs[0].ids == [REMOTE_TOKEN])
            ]
        done = [e.handle for e in self.events if isinstance(e, PrefillDone)]
        assert len(done) == len(set(done))


SchedulerMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
TestScheduler = SchedulerMachine.TestCase
