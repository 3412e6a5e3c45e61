"""Sampling: the law in plain Python, the torch sampler equal to it, the same draw on every pod and beside any rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.sampling import Sampling, choice_seed, uniform
from tandem_runtime.engine import sampler
from tandem_runtime.engine import sampling_law as law
from tandem_runtime.engine.sampler import Place, sample

LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3]))
VOCABULARY = 24

rows = st.lists(st.floats(-20, 20, width=32), min_size=VOCABULARY, max_size=VOCABULARY)
coarse_rows = st.lists(st.sampled_from([-3.0, 0.0, 0.5, 2.0]), min_size=VOCABULARY, max_size=VOCABULARY)
"""bfloat16 logits tie all the time."""
tokens = st.integers(0, VOCABULARY - 1)
samplings = st.builds(
    Sampling,
    max_tokens=st.just(64),
    temperature=st.sampled_from([0.0, 0.0, 0.2, 1.0, 1.7, 1e-6, 1e-310]),
    top_k=st.sampled_from([0, 1, 3, 12, 100]),
    top_p=st.sampled_from([1.0, 0.05, 0.5, 0.9]),
    min_p=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    seed=st.integers(0, 2**63 - 1),
    presence_penalty=st.sampled_from([0.0, 0.7, -1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.4, -0.3]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    logit_bias=st.dictionaries(tokens, st.floats(-100, 100), max_size=3).map(lambda bias: tuple(bias.items())),
    stop_token_ids=st.lists(tokens, max_size=2).map(tuple),
    min_tokens=st.sampled_from([0, 0, 5]),
)


def place(sampling: Sampling, index: int = 0, tokens: tuple[int, ...] = ()) -> Place:
    return Place(sampling, index, tokens)


def draw_one(row: torch.Tensor, sampling: Sampling, index: int = 0) -> int:
    return sample(row[None], [place(sampling, index)]).ids[0]


@settings(max_examples=120, deadline=None)
@given(
    batch=st.lists(
        st.tuples(
            rows | coarse_rows,
            samplings,
            st.lists(tokens, min_size=1, max_size=6),
            st.lists(tokens, max_size=8),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_torch_draws_what_the_law_says_in_whatever_batch(batch: list[tuple[Any, ...]]) -> None:
    logits = torch.tensor([row for row, *_ in batch], dtype=torch.float32)
    before = logits.clone()
    places = [place(sampling, len(output), (*prompt, *output)) for _, sampling, prompt, output in batch]
    drawn = sample(logits, places, ends=(7,))
    wanted = [
        law.choose(row, each.sampling, each.output_index, each.tokens, (7,))
        for row, each in zip(logits.tolist(), places, strict=True)
    ]
    assert drawn.ids == wanted
    assert torch.equal(logits, before)


def test_rows_that_are_drawn_one_by_one_draw_as_the_law_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "CACHED_NUMBERS", 2000)
    flat = torch.randn(4, 1500, generator=torch.Generator().manual_seed(0))
    options = [
        Sampling(9, temperature=1.0, seed=1),
        Sampling(9, temperature=1.0, top_p=0.9, seed=2),
        Sampling(9, temperature=0.7, top_k=200, top_p=0.5, seed=3),
        Sampling(9, temperature=0.02, top_p=0.9, seed=4),
    ]
    for index in range(4):
        want = [law.choose(row, each, index) for row, each in zip(flat.tolist(), options, strict=True)]
        assert sample(flat, [place(each, index) for each in options]).ids == want


def test_log_probabilities_are_the_models_own_and_given_on_request_only() -> None:
    wild = Sampling(4, temperature=3.0, top_k=1, logit_bias=((0, -50.0),), presence_penalty=2.0, logprobs=3)
    drawn = sample(LOGITS.repeat(2, 1), [place(wild, 1, (1, 1)), place(Sampling(4))])
    likeliest, alternatives = law.log_probabilities(LOGITS.tolist(), drawn.ids[0], 3)
    assert drawn.logprobs == [pytest.approx(likeliest, abs=1e-6), None]
    assert [token for token, _ in drawn.alternatives[0]] == [token for token, _ in alternatives] == [1, 3, 2]
    assert [p for _, p in drawn.alternatives[0]] == pytest.approx([p for _, p in alternatives], abs=1e-6)
    assert drawn.alternatives[1] == []


def test_alternatives_that_tie_come_in_order_of_their_ids() -> None:
    drawn = sample(torch.zeros(1, 50), [place(Sampling(4, logprobs=5))])
    assert [token for token, _ in drawn.alternatives[0]] == [0, 1, 2, 3, 4]


def test_penalties_count_output_and_repetition_the_prompt_too() -> None:
    row = torch.tensor([[3.0, 2.0, 1.0, -1.0]])
    assert sample(row, [place(Sampling(9, presence_penalty=2.0), 1, (1, 0))]).ids == [1]
    assert sample(row, [place(Sampling(9, presence_penalty=2.0), 0, (1, 0))]).ids == [0]  # both are the prompt's
    assert sample(row, [place(Sampling(9, frequency_penalty=0.6), 2, (3, 0, 0))]).ids == [1]
    assert sample(row, [place(Sampling(9, repetition_penalty=4.0), 0, (0, 1))]).ids == [2]
    changed = law.change(row[0].tolist(), Sampling(9, repetition_penalty=4.0), 0, (3,), ())
    assert changed == [3.0, 2.0, 1.0, -4.0]


def test_no_end_is_drawn_before_the_least_length() -> None:
    row = torch.tensor([[5.0, 4.0, 3.0, 2.0]])
    patient = Sampling(9, min_tokens=2, stop_token_ids=(1,))
    assert [sample(row, [place(patient, index)], ends=(0,)).ids[0] for index in range(3)] == [2, 2, 0]


@given(seed=st.integers(-(2**63), 2**64), index=st.integers(0, 10**7))
def test_the_stream_is_a_function_of_seed_and_index_alone(seed: int, index: int) -> None:
    assert 0.0 <= uniform(seed, index) < 1.0
    assert uniform(seed, index) == uniform(seed, index)


def test_the_stream_is_the_same_on_every_platform() -> None:
    numbers = [uniform(seed, index) for seed, index in ((0, 0), (1, 0), (0, 1), (2**63 - 1, 10**6))]
    assert numbers == [0.5026230818294767, 0.2494438185944281, 0.24560133053559752, 0.6753747143222709]
    assert [choice_seed(17, choice) for choice in range(3)] == [17, 3583838788363476977, 6319104726217817176]


def test_neighbouring_seeds_and_indices_draw_evenly() -> None:
    for numbers_ in ([uniform(seed, 0) for seed in range(4000)], [uniform(7, index) for index in range(4000)]):
        assert abs(sum(numbers_) / 4000 - 0.5) < 0.02
        assert all(350 < count < 450 for count in Counter(int(number * 10) for number in numbers_).values())
    assert len({uniform(seed, index) for seed in range(64) for index in range(64)}) == 4096


def test_choices_of_one_request_have_seeds_of_their_own() -> None:
    assert choice_seed(5, 0) == 5
    seeds = {choice_seed(seed, choice) for seed in range(64) for choice in range(1, 64)}
    assert len(seeds) == 64 * 63
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_frequencies_follow_the_distribution() -> None:
    sampling = Sampling(max_tokens=1, temperature=1.0, seed=3)
    ids = sample(LOGITS.repeat(3000, 1), [place(sampling, index) for index in range(3000)]).ids
    for token, probability in enumerate([0.1, 0.4, 0.2, 0.3]):
        assert abs(ids.count(token) / 3000 - probability) < 0.03


def test_a_tiny_temperature_is_greedy() -> None:
    row = torch.tensor([0.1, 0.3, 0.2])
    assert {draw_one(row, Sampling(9, temperature=1e-310), index) for index in range(20)} == {1}
