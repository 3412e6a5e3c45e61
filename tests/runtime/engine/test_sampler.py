"""Sampling: the same draw on every pod, inside the filters, at the right frequencies."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.sampler import draw, sample, uniform

LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3]))

rows = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40).map(torch.tensor)
numbers = st.floats(0, 1, exclude_max=True)


def test_greedy_takes_the_largest_and_says_its_log_probability() -> None:
    ids, logprobs = sample(LOGITS[None].clone(), [Sampling(max_tokens=1)], [0])
    assert ids == [1]
    assert abs(logprobs[0] - float(torch.log(torch.tensor(0.4)))) < 1e-6


def test_the_log_probability_is_that_before_temperature_and_filters() -> None:
    _, plain = sample(LOGITS[None], [Sampling(max_tokens=1, temperature=3.0, top_k=1)], [0])
    assert abs(plain[0] - float(torch.log(torch.tensor(0.4)))) < 1e-6


@given(seed=st.integers(-(2**63), 2**64), index=st.integers(0, 10**7))
def test_the_stream_is_a_function_of_seed_and_index_alone(seed: int, index: int) -> None:
    assert 0.0 <= uniform(seed, index) < 1.0
    assert uniform(seed, index) == uniform(seed, index)


def test_neighbouring_seeds_and_indices_draw_evenly() -> None:
    for numbers_ in ([uniform(seed, 0) for seed in range(4000)], [uniform(7, index) for index in range(4000)]):
        assert abs(sum(numbers_) / 4000 - 0.5) < 0.02
        assert all(350 < count < 450 for count in Counter(int(number * 10) for number in numbers_).values())
    assert len({uniform(seed, index) for seed in range(64) for index in range(64)}) == 4096


@given(row=rows, number=numbers, top_k=st.integers(1, 50), temperature=st.floats(0.05, 5))
def test_top_k_keeps_to_the_k_largest(row: torch.Tensor, number: float, top_k: int, temperature: float) -> None:
    token = draw(row, Sampling(max_tokens=1, temperature=temperature, top_k=top_k), number)
    assert int((row > row[token]).sum()) < top_k


@given(row=rows, number=numbers, top_p=st.floats(0.01, 1))
def test_top_p_keeps_to_the_fewest_that_reach_p(row: torch.Tensor, number: float, top_p: float) -> None:
    token = draw(row, Sampling(max_tokens=1, temperature=1.0, top_p=top_p), number)
    probabilities = torch.softmax(row.double(), dim=-1)
    assert float(probabilities[row > row[token]].sum()) < top_p + 1e-9


@given(row=rows, number=numbers)
def test_a_tiny_temperature_is_greedy(row: torch.Tensor, number: float) -> None:
    for sampling in (Sampling(1, temperature=1e-6, top_k=1), Sampling(1, temperature=1e-310)):
        assert row[draw(row, sampling, number)] == row.max()


def test_frequencies_follow_the_distribution() -> None:
    sampling = Sampling(max_tokens=1, temperature=1.0, seed=3)
    counts = Counter(draw(LOGITS, sampling, uniform(3, index)) for index in range(3000))
    for token, probability in enumerate([0.1, 0.4, 0.2, 0.3]):
        assert abs(counts[token] / 3000 - probability) < 0.03


def test_a_row_draws_the_same_beside_any_other_rows() -> None:
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    samplings = [Sampling(max_tokens=1, temperature=1.0, seed=row) for row in range(4)] + [Sampling(max_tokens=1)]
    together, _ = sample(logits, samplings, [5] * 5)
    alone = [sample(logits[row : row + 1], [samplings[row]], [5])[0][0] for row in range(5)]
    assert together == alone
