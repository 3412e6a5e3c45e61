"""What the scheduler does, step by step, with an executor that is a list of numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.kv_protocol import Layout
from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.contracts.sampling import Sampling
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
from tandem_runtime.engine.executor import Capacity, StepResult
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.request import Phase, Request
from tandem_runtime.engine.scheduler import Scheduler
from tandem_runtime.engine.work import Work

EOS = 99
CAPACITY = Capacity(
    pages=16,
    page_tokens=4,
    max_sequences=8,
    max_context_tokens=1000,
    vocab_size=100,
    eos_token_ids=frozenset({EOS}),
    layout=Layout(1, 1, 1, 4, "none", 16),
    compat_hash="x",
)


class Bench:
    """A scheduler with a clock of its own."""

    def __init__(self, pages: int = 16, **changes: Any) -> None:
        self.events: list[Event] = []
        options = replace(SchedulerSettings(free_page_share=0.0, headroom_tokens=0), **changes)
        self.scheduler = Scheduler(replace(CAPACITY, pages=pages), options, self.events.append)
        self.now = 0.0
        self.handles = 0

    def add(
        self, prompt: int = 4, max_tokens: int = 4, emitted: int = 0, deadline: float = 60.0, **more: Any
    ) -> Request:
        self.handles += 1
        tokens = [1] * (prompt + emitted)
        request = Request(self.handles, tokens, prompt, Sampling(max_tokens), self.now + deadline, 7, **more)
        self.scheduler.add(request, self.now)
        return request

    def step(self, token: int = 5) -> list[Work]:
        self.scheduler.expire(self.now)
        work = self.scheduler.plan(self.now)
        ids = [token if item.samples else None for item in work]
        self.scheduler.steps(work)
        self.scheduler.apply(work, StepResult(list(ids), [0.0] * len(ids), 0.0), self.now)
        return work

    def run(self, steps: int = 300) -> None:
        for _ in range(steps):
            if not self.scheduler.requests:
                return
            self.step()
        raise AssertionError(f"still inside: {self.scheduler.requests}")

    def of(self, kind: type[Any], handle: int) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind) and event.handle == handle]


def test_decoding_requests_get_their_token_before_any_prompt_gets_a_chunk() -> None:
    bench = Bench(pages=64, step_tokens=8)
    first = bench.add(prompt=4, max_tokens=20)
    bench.step()
    second = bench.add(prompt=40)
    work = bench.step()
    assert [(w.request, w.tokens) for w in work] == [(first, 1), (second, 7)]


def test_a_long_prompt_is_computed_in_chunks_within_the_budget_and_sampled_once() -> None:
    bench = Bench(pages=64, step_tokens=16)
    request = bench.add(prompt=40, max_tokens=1)
    assert [bench.step()[0].tokens for _ in range(3)] == [16, 16, 8]
    assert [event.ids for event in bench.of(Output, request.handle)] == [[5]]
    assert bench.of(Finished, request.handle)[0].reason == "length"


def test_deterministic_chunks_do_not_depend_on_the_rest_of_the_batch() -> None:
    for others in (0, 3):
        bench = Bench(pages=256, step_tokens=64, chunk_tokens=16, deterministic=True)
        for _ in range(others):
            bench.add(prompt=50)
        request = bench.add(prompt=40, emitted=3, max_tokens=10)
        chunks: list[int] = []
        while request.phase is not Phase.DECODE:
            chunks += [w.tokens for w in bench.step() if w.request is request]
        assert chunks == [16, 16, 8, 1, 1, 1], "prompt in whole chunks, what was emitted one by one"


@pytest.mark.parametrize(
    ("more", "want"),
    [
        ({"prompt": 0}, (Reason.INVALID, False)),
        ({"prompt": 64}, (Reason.CONTEXT_LENGTH, False)),
        ({"prompt": 2000}, (Reason.CONTEXT_LENGTH, False)),
    ],
)
def test_what_can_never_fit_is_refused_at_once_and_for_good(more: dict[str, int], want: tuple[Reason, bool]) -> None:
    bench = Bench()
    request = bench.add(**more)
    [broken] = bench.of(Broken, request.handle)
    assert (broken.reason, broken.retryable) == want
    assert not bench.scheduler.requests


def test_a_token_outside_the_vocabulary_is_refused_with_its_id() -> None:
    bench = Bench()
    request = Request(1, [3, 1_000_000, -1], 3, Sampling(4), 60.0, 7)
    bench.scheduler.add(request, 0.0)
    [broken] = bench.of(Broken, 1)
    assert broken.reason is Reason.INVALID
    assert "1000000" in broken.message


def test_a_full_queue_refuses_with_a_hint_to_try_elsewhere() -> None:
    bench = Bench(waiting_requests=2)
    requests = [bench.add() for _ in range(3)]
    [broken] = bench.of(Broken, requests[2].handle)
    assert (broken.reason, broken.retryable) == (Reason.OVERLOADED, True)
    bench.run()


def test_out_of_pages_the_newest_request_recomputes_and_every_one_completes() -> None:
    bench = Bench(pages=6)
    requests = [bench.add(prompt=4, max_tokens=16) for _ in range(3)]
    bench.run()
    assert bench.scheduler.counters.preempted > 0
    for request in requests:
        outputs = bench.of(Output, request.handle)
        assert [event.output_index for event in outputs] == list(range(16)), "nothing twice, nothing lost"
        assert bench.of(Finished, request.handle)[0].reason == "length"
    assert bench.scheduler.leaked_pages() == 0
    assert bench.scheduler.blocks.free == 6


def test_the_end_of_text_stops_a_request_unless_it_is_ignored() -> None:
    bench = Bench()
    request = bench.add(max_tokens=9)
    bench.step(EOS)
    assert bench.of(Finished, request.handle)[0].reason == "stop"
    stubborn = bench.add(max_tokens=2)
    stubborn.sampling = Sampling(2, ignore_eos=True)
    bench.step(EOS)
    bench.step(EOS)
    assert bench.of(Finished, stubborn.handle)[0].reason == "length"


def test_a_resumed_request_counts_what_was_emitted_before() -> None:
    bench = Bench()
    request = bench.add(prompt=4, emitted=3, max_tokens=5)
    bench.run()
    assert [event.output_index for event in bench.of(Output, request.handle)] == [3, 4]
    done = bench.add(prompt=4, emitted=5, max_tokens=5)
    assert bench.of(Finished, done.handle)[0].reason == "length"


def test_a_request_that_waits_for_remote_kv_blocks_nobody_and_goes_on_where_the_kv_ends() -> None:
    bench = Bench()
    remote = bench.add(prompt=8, max_tokens=2, remote=True)
    local = bench.add(prompt=4, max_tokens=1)
    bench.step()
    assert bench.of(Finished, local.handle)
    [reserved] = bench.of(Reserved, remote.handle)
    assert len(reserved.pages) == 3, "two for the prompt and one of headroom"
    page, generation = reserved.pages[1]
    assert bench.scheduler.awaits(remote.handle, 1, generation) == page
    assert bench.scheduler.awaits(remote.handle, 1, generation + 1) is None, "another generation is stale"
    bench.scheduler.commit(RemoteCommit(remote.handle, 42, 0.0, 32))
    bench.run()
    assert [event.ids for event in bench.of(Output, remote.handle)] == [[42], [5]]
    assert bench.of(Output, remote.handle)[0].prefilled_here == 0
    assert bench.scheduler.awaits(remote.handle, 1, generation) is None, "the request is over"


def test_kv_that_does_not_come_in_time_is_computed_here_and_late_pages_are_stale() -> None:
    bench = Bench(remote_kv_seconds=2.0)
    request = bench.add(prompt=8, max_tokens=1, remote=True)
    bench.step()
    [reserved] = bench.of(Reserved, request.handle)
    bench.now = 2.5
    bench.step()
    assert bench.of(RemoteAbandoned, request.handle)
    assert bench.scheduler.awaits(request.handle, 0, reserved.pages[0][1]) is None
    assert bench.of(Output, request.handle)[0].prefilled_here == 8
    bench.scheduler.commit(RemoteCommit(request.handle, 42, 0.0, 32))
    assert bench.scheduler.leaked_pages() == 0


@pytest.mark.parametrize("more", [{}, {"remote": True}, {"handoff": True}])
def test_every_phase_ends_at_the_request_s_deadline(more: dict[str, bool]) -> None:
    bench = Bench(step_tokens=2, sending_seconds=5.0, remote_kv_seconds=100.0)
    request = bench.add(prompt=4, max_tokens=1000, deadline=5.0, **more)
    for _ in range(4):
        bench.step()
    bench.now = 5.1
    bench.step()
    assert bench.of(Broken, request.handle)[0].reason is Reason.TIMEOUT
    assert bench.scheduler.blocks.free == 16


def test_a_handoff_keeps_its_pages_until_it_is_released() -> None:
    bench = Bench()
    request = bench.add(prompt=8, handoff=True)
    bench.step()
    [done] = bench.of(PrefillDone, request.handle)
    assert (done.first_token, done.n_tokens) == (5, 8)
    assert bench.scheduler.blocks.used == 2
    bench.scheduler.abort(request.handle)
    bench.scheduler.abort(request.handle)
    assert bench.scheduler.blocks.used == 0


ACTIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 30), st.integers(1, 12)),
    st.tuples(st.just("remote"), st.integers(1, 30), st.integers(1, 12)),
    st.tuples(st.just("handoff"), st.integers(1, 30), st.just(1)),
    st.tuples(st.sampled_from(["commit", "compute_here", "abort"]), st.integers(1, 12), st.just(0)),
    st.tuples(st.just("step"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 40), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTIONS, max_size=40), st.integers(4, 20), st.booleans())
def test_whatever_happens_every_request_ends_exactly_once_and_no_page_is_lost(
    actions: list[tuple[str, int, int]], pages: int, deterministic: bool
) -> None:
    bench = Bench(pages=pages, step_tokens=10, chunk_tokens=8, remote_kv_seconds=3.0, deterministic=deterministic)
    scheduler = bench.scheduler
    for name, number, tokens in actions:
        if name in ("add", "remote", "handoff"):
            bench.add(prompt=number, max_tokens=tokens, remote=name == "remote", handoff=name == "handoff")
        elif name == "commit":
            scheduler.commit(RemoteCommit(number, 42, 0.0, 1))
        elif name == "step":
            for _ in range(number):
                bench.step()
        elif name == "wait":
            bench.now += number / 10
        else:
            getattr(scheduler, name)(number)
        assert scheduler.leaked_pages() == 0
    bench.now += 1000.0
    bench.step()
    counters = scheduler.counters
    assert counters.added == counters.finished + counters.aborted + counters.failed
    assert not scheduler.requests
    assert scheduler.running == scheduler.waiting == 0
    assert scheduler.blocks.free == pages
