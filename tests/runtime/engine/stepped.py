"""Pods without threads, sockets or time: a scheduler and an executor, turned by hand, and pages carried by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tandem_runtime.contracts.hashing import BLOCK_TOKENS, prompt_digest
from tandem_runtime.contracts.sampling import Alternatives, Sampling
from tandem_runtime.engine.events import Broken, Event, Finished, Output, PrefillDone, RemoteCommit, Reserved
from tandem_runtime.engine.executor import Executor, Plan, StepResult
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.prefixes import PrefixHashes
from tandem_runtime.engine.request import Request, page_count
from tandem_runtime.engine.scheduler import Scheduler

MOST_STEPS = 3000


class Stepped:
    """One pod. `plans` are all that its executor was asked for: one forward each."""

    def __init__(self, executor: Executor, **settings: Any) -> None:
        self.executor = executor
        self.capacity = executor.load()
        self.events: list[Event] = []
        self.scheduler = Scheduler(self.capacity, SchedulerSettings(**settings), self.events.append)
        self.plans: list[Plan] = []
        self.most_held = 0
        self._handles = 0

    def add(
        self, prompt: Sequence[int], sampling: Sampling, emitted: Sequence[int] = (), salt: bytes = b"", **more: Any
    ) -> Request:
        self._handles += 1
        request = Request(
            handle=self._handles,
            tokens=[*prompt, *emitted],
            prompt_tokens=len(prompt),
            sampling=sampling,
            deadline=1e9,
            prompt_digest=prompt_digest(prompt),
            prefixes=self._prefixes(salt),
            **more,
        )
        self.scheduler.add(request, 0.0)
        return request

    def _prefixes(self, salt: bytes) -> PrefixHashes | None:
        size = self.capacity.page_tokens
        return None if size % BLOCK_TOKENS else PrefixHashes(b"key", salt, size)

    def step(self) -> bool:
        """False when there is nothing to do."""
        work = self.scheduler.plan(0.0)
        if not work:
            return False
        plan = self.scheduler.steps(work)
        self.plans.append(plan)
        result: StepResult = self.executor.execute(plan)
        self.scheduler.apply(work, result, 0.0)
        self.most_held = max([self.most_held, *(len(r.held) for r in self.scheduler.requests.values())])
        assert self.scheduler.leaked_pages() == 0
        return True

    def run(self) -> None:
        """Until nothing is left to do."""
        for _ in range(MOST_STEPS):
            if not self.step():
                return
        raise AssertionError(f"still inside: {self.scheduler.requests}")

    def ask(self, prompt: Sequence[int], sampling: Sampling, emitted: Sequence[int] = (), **more: Any) -> list[int]:
        """The answer of one request alone."""
        request = self.add(prompt, sampling, emitted, **more)
        self.run()
        return self.ids(request)

    def _outputs(self, request: Request) -> list[Output]:
        assert not any(isinstance(e, Broken) and e.handle == request.handle for e in self.events), self.events
        outputs = [e for e in self.events if isinstance(e, Output) and e.handle == request.handle]
        position = outputs[0].output_index if outputs else 0
        for output in outputs:
            assert output.output_index == position, "no gap, no repetition"
            position += len(output.ids)
        return outputs

    def ids(self, request: Request) -> list[int]:
        """What came of a request."""
        return [token for output in self._outputs(request) for token in output.ids]

    def logprobs(self, request: Request) -> list[tuple[float, Alternatives]]:
        """Of each token, with the likeliest at its place."""
        outputs = self._outputs(request)
        return [pair for o in outputs for pair in zip(o.logprobs, o.alternatives, strict=True)]

    def reason(self, request: Request) -> str:
        """How it ended."""
        [end] = [e.reason for e in self.events if isinstance(e, Finished) and e.handle == request.handle]
        return end


def hand_over(prefill: Stepped, decode: Stepped, prompt: Sequence[int], sampling: Sampling, **more: Any) -> Request:
    """The decode pod's request, its KV computed by the prefill pod; it decodes from the next step on."""
    request = decode.add(prompt, sampling, remote=True, **more)
    decode.step()
    [reserved] = [e for e in decode.events if isinstance(e, Reserved) and e.handle == request.handle]
    work = prefill.add(prompt, sampling, handoff=True, **more)
    prefill.run()
    [done] = [e for e in prefill.events if isinstance(e, PrefillDone) and e.handle == work.handle]
    layers = prefill.capacity.layout.layers
    for ordinal in range(reserved.have_pages, page_count(len(request.tokens), prefill.capacity.page_tokens)):
        page = decode.scheduler.awaits(request.handle, ordinal, reserved.pages[ordinal][1])
        assert page is not None
        decode.executor.write_pages([page], 0, layers, prefill.executor.read_pages([work.pages[ordinal]], 0, layers))
    prefill.scheduler.abort(work.handle)
    commit = RemoteCommit(request.handle, done.first_token, done.logprob, 1, done.alternatives)
    decode.scheduler.commit(commit)
    return request
