"""What sampling asks of the scheduler: ends of an answer, the tokens that penalties count, what goes to the client."""

from __future__ import annotations

from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.events import Finished, Output, PrefillDone
from tandem_runtime.engine.executor import StepResult
from tandem_runtime.engine.request import Request

from tests.runtime.engine.test_scheduler import EOS, Bench


def add(bench: Bench, sampling: Sampling, tokens: list[int], prompt: int, handoff: bool = False) -> Request:
    bench.handles += 1
    request = Request(bench.handles, tokens, prompt, sampling, bench.now + 60.0, 7, handoff=handoff)
    bench.scheduler.add(request, bench.now)
    return request


def test_a_stop_token_ends_an_answer_also_where_the_models_own_end_is_ignored() -> None:
    bench = Bench()
    request = add(bench, Sampling(9, ignore_eos=True, stop_token_ids=(7,)), [1, 2], 2)
    for token in (5, EOS, 7):
        bench.step(token)
    assert [event.ids for event in bench.of(Output, request.handle)] == [[5], [EOS], [7]]
    assert [event.reason for event in bench.of(Finished, request.handle)] == ["stop"]


def test_penalties_see_prompt_and_output_also_after_a_resume_and_nobody_else_pays_for_them() -> None:
    bench = Bench()
    counting = add(bench, Sampling(9, presence_penalty=1.0), [1, 2, 3, 4], 2)
    plain = add(bench, Sampling(9), [1, 2, 3, 4], 2)
    for seen in ([1, 2, 3, 4], [1, 2, 3, 4, 5]):
        work = bench.scheduler.plan(bench.now)
        steps = dict(zip([item.request for item in work], bench.scheduler.steps(work).sequences, strict=True))
        assert list(steps[counting].tokens) == seen
        assert steps[counting].output_index == len(seen) - 2
        assert list(steps[plain].tokens) == []
        bench.scheduler.apply(work, StepResult([5] * len(work), [None] * len(work), 0.0), bench.now)


def test_alternatives_reach_whoever_decodes_on_or_asked() -> None:
    for handoff, kind in ((False, Output), (True, PrefillDone)):
        bench = Bench()
        request = add(bench, Sampling(9, logprobs=1), [1, 2], 2, handoff)
        bench.now += 1.5
        work = bench.scheduler.plan(bench.now)
        bench.scheduler.apply(work, StepResult([5], [-0.5], 0.0, [[(6, -0.25)]]), bench.now)
        [event] = bench.of(kind, request.handle)
        alternatives = event.alternatives[0] if isinstance(event, Output) else event.alternatives
        assert (alternatives, event.queued_seconds) == ([(6, -0.25)], 1.5)
