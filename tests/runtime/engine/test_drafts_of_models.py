"""Drafts on real weights: in deterministic mode the very same bits, in the fast modes the rows of a plain chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.executor import Plan
from tandem_runtime.engine.torch_executor import TorchExecutor
from tandem_runtime.models.families import FAMILIES
from tandem_runtime.models.make_model import make_model

from tests.runtime.decoding import Stream
from tests.runtime.engine.stepped import Stepped, hand_over

PHRASE = [17, 230, 41, 399, 56, 78, 120, 33, 301]
PROMPT = PHRASE * 7
FEW_WORDS = tuple((token, 60.0) for token in PHRASE)
"""Bias that leaves a random model so few words that it repeats itself."""
MODES: list[dict[str, Any]] = [{"deterministic": True}, {}, {"dtype": "bfloat16"}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in ("llama", "mistral")}
    for name, folder in made.items():
        make_model(folder, family=FAMILIES[name])
    return made


@pytest.fixture(scope="module")
def make(folders: dict[str, Path]) -> Iterator[Callable[..., TorchExecutor]]:
    made: dict[str, TorchExecutor] = {}

    def start(family: str = "llama", number: int = 0, **options: Any) -> TorchExecutor:
        name = f"{family} {number} {options}"
        if name not in made:
            made[name] = TorchExecutor(
                folders[family], device="cpu", max_context_tokens=512, kv_memory_bytes=1 << 23, **options
            )
        return made[name]

    yield start
    for executor in made.values():
        executor.close()


def pod_of(executor: TorchExecutor, draft_tokens: int) -> Stepped:
    return Stepped(executor, deterministic=True, draft_tokens=draft_tokens, prefix_cache=False)


@settings(max_examples=8)
@given(
    sampling=st.builds(
        Sampling,
        max_tokens=st.integers(1, 50),
        temperature=st.sampled_from([0.0, 0.7]),
        top_p=st.sampled_from([1.0, 0.9]),
        seed=st.integers(0, 9),
        frequency_penalty=st.sampled_from([0.0, 0.4]),
        repetition_penalty=st.sampled_from([1.0, 1.05]),
        logit_bias=st.sampled_from([FEW_WORDS, ()]),
        min_tokens=st.sampled_from([0, 1]),
        logprobs=st.sampled_from([None, 2]),
        ignore_eos=st.booleans(),
    ),
    prompt_tokens=st.integers(1, len(PROMPT)),
    draft_tokens=st.integers(1, 12),
)
def test_in_deterministic_mode_tokens_and_log_probabilities_are_the_same_bits(
    make: Callable[..., TorchExecutor], sampling: Sampling, prompt_tokens: int, draft_tokens: int
) -> None:
    answers = []
    for most in (0, draft_tokens):
        pod = pod_of(make(deterministic=True), most)
        request = pod.add(PROMPT[:prompt_tokens], sampling)
        pod.run()
        answers.append((pod.ids(request), pod.logprobs(request), pod.reason(request)))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_decode_pod_and_a_resumed_stream_go_on_with_the_same_bits(
    make: Callable[..., TorchExecutor], family: str
) -> None:
    sampling = Sampling(90, temperature=0.3, seed=4, logit_bias=FEW_WORDS, ignore_eos=True)
    prompt = PHRASE * 28 if family == "mistral" else PROMPT
    want = pod_of(make(family, deterministic=True), 0).ask(prompt, sampling)
    prefill, decode = (pod_of(make(family, number, deterministic=True), 7) for number in range(2))
    request = hand_over(prefill, decode, prompt, sampling)
    decode.run()
    assert decode.ids(request) == want
    assert decode.scheduler.counters.accepted_tokens > 20
    assert (decode.scheduler.counters.passed_pages > 0) == (family == "mistral")
    resumed = pod_of(make(family, deterministic=True), 7)
    assert resumed.ask(prompt, sampling, want[:33]) == want[33:]
    assert resumed.scheduler.counters.accepted_tokens > 10


@pytest.mark.parametrize("mode", MODES)
def test_a_draft_s_rows_are_those_of_the_tokens_one_by_one(make: Callable[..., TorchExecutor], mode: Any) -> None:
    executor = make(**mode)
    executor.load()
    greedy = Sampling(64, ignore_eos=True)
    want = Stream(executor, PROMPT, 0, greedy).run(12)
    drafted = Stream(executor, PROMPT, 20, greedy)
    drafted.run(1)
    wrong = want[4] ^ 1
    drafts = [*want[1:4], wrong, *want[5:7]]
    step = drafted.step()
    step = replace(step, token_ids=[*step.token_ids, *drafts], drafts=len(drafts), pages=drafted.pages(96))
    other = Stream(executor, PROMPT[:20], 40, greedy)
    result = executor.execute(Plan([other.step(1 << 20), step, replace(other.step(1 << 20), sampling=None)]))
    assert len(result.ids) == 1 + 7 + 1
    assert result.ids[1:5] == want[1:5], "up to the wrong one; what comes after it is a guess upon a wrong guess"
    assert result.ids[-1] is None
    drafted.tokens += want[1:5]
    drafted.computed += 4
    assert drafted.run(12) == want, "what was stored for wrong drafts is overwritten"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("draft_tokens", [0, 7])
def test_repetitive_text_takes_few_forwards_in_every_mode(
    make: Callable[..., TorchExecutor], mode: Any, draft_tokens: int
) -> None:
    pod = Stepped(make(**mode), draft_tokens=draft_tokens, **{k: v for k, v in mode.items() if k == "deterministic"})
    request = pod.add(PROMPT, Sampling(100, logit_bias=FEW_WORDS, ignore_eos=True))
    pod.run()
    assert len(pod.ids(request)) == 100
    forwards = sum(1 for plan in pod.plans if plan.sequences[0].output_index > 0)
    print(f"{mode}: {draft_tokens} drafts, {forwards / 99:.3f} forwards per token")
    assert forwards == 99 if draft_tokens == 0 else forwards < 45
