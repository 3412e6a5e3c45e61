"""The compiled sampler draws what torch draws, whatever the options, and says so where it cannot promise that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine import sampling_law as law
from tandem_runtime.engine.compiled_sampler import UNDECIDED, choose, sample_compiled
from tandem_runtime.engine.sampler import Place, sample
from tandem_runtime.native.build import BuildError
from tandem_runtime.ops.native import INSTRUCTION_SETS, Native

from tests.runtime.engine.test_sampler import VOCABULARY, coarse_rows, rows, samplings
from tests.runtime.engine.test_sampler import tokens as ids

INFINITE = float("inf")
ODD = (0.0, -0.0, INFINITE, -INFINITE, float("nan"), 3.0)
OPTIONS = (
    {},
    {"temperature": 1.0},
    {"temperature": 0.05},
    {"temperature": 30.0},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 0.7, "top_p": 0.3},
    {"temperature": 1.0, "top_k": 50, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 1},
    {"temperature": 1.0, "top_k": 20_000},
    {"temperature": 1.0, "min_p": 0.05, "top_p": 0.97},
    {"temperature": 2.0, "min_p": 1.0},
    {"temperature": 1.0, "top_k": 900, "top_p": 0.6, "min_p": 0.3},
)


@pytest.fixture(params=INSTRUCTION_SETS, scope="module")
def native(request: pytest.FixtureRequest) -> Iterator[Native]:
    try:
        yield Native(request.param, 2)
    except BuildError as error:
        pytest.skip(f"unverified here: {error}")


def large_rows(kind: str, vocabulary: int, count: int) -> torch.Tensor:
    random = torch.randn(count, vocabulary, generator=torch.Generator().manual_seed(vocabulary + len(kind)))
    if kind == "coarse":  # ties everywhere
        return (random * 3).round()
    if kind == "bfloat16":
        return (random * 4).bfloat16().float()
    return random * {"flat": 0.02, "usual": 2.0, "peaked": 25.0}[kind]


@pytest.mark.parametrize("vocabulary", [509, 32_000])
@pytest.mark.parametrize("kind", ["flat", "usual", "peaked", "coarse", "bfloat16"])
def test_large_vocabularies_give_the_tokens_of_torch(native: Native, kind: str, vocabulary: int) -> None:
    logits = large_rows(kind, vocabulary, 3).repeat(len(OPTIONS), 1)
    before = logits.clone()
    options = [option for option in OPTIONS for _ in range(3)]
    undecided = 0
    for index in range(4):
        places = [Place(Sampling(9, seed=row, **option), index) for row, option in enumerate(options)]  # type: ignore[arg-type]
        got, want = choose(native, logits, places, ()).ids, sample(logits, places).ids
        undecided += got.count(UNDECIDED)
        assert [token for token in got if token != UNDECIDED] == [
            token for token, here in zip(want, got, strict=True) if here != UNDECIDED
        ]
        assert sample_compiled(native, logits, places).ids == want
    assert torch.equal(logits, before)
    if kind in ("usual", "bfloat16"):
        assert undecided == 0, "no row of a usual kind is left to torch"


@settings(max_examples=150)
@given(
    batch=st.lists(
        st.tuples(rows | coarse_rows, samplings, st.lists(ids, min_size=1, max_size=6), st.lists(ids, max_size=8)),
        min_size=1,
        max_size=4,
    )
)
def test_every_option_gives_what_the_law_says(native: Native, batch: list[tuple[Any, ...]]) -> None:
    logits = torch.tensor([row for row, *_ in batch], dtype=torch.float32)
    places = [Place(sampling, len(output), (*prompt, *output)) for _, sampling, prompt, output in batch]
    assert sample_compiled(native, logits, places, (7,)).ids == [
        law.choose(row, each.sampling, each.output_index, each.tokens, (7,))
        for row, each in zip(logits.tolist(), places, strict=True)
    ]


@settings(max_examples=60)
@given(
    values=st.lists(st.sampled_from(ODD), min_size=VOCABULARY, max_size=VOCABULARY),
    sampling=samplings,
)
def test_what_is_no_number_is_treated_as_torch_does(native: Native, values: list[float], sampling: Sampling) -> None:
    logits = torch.tensor([values], dtype=torch.float32)
    places = [Place(sampling, 3, (1, 2, 0, 2))]
    assert sample_compiled(native, logits, places, (7,)).ids == sample(logits, places, (7,)).ids


@pytest.mark.parametrize("value", [float("nan"), INFINITE])
def test_logits_that_are_no_numbers_are_left_to_torch(native: Native, value: float) -> None:
    for place_of_it in (0, 256, 700, 998, 999):
        logits = torch.zeros(1, 1000)
        logits[0, place_of_it] = value
        for sampling in (Sampling(9), Sampling(9, temperature=1.0, top_k=5), Sampling(9, logprobs=2)):
            assert choose(native, logits, [Place(sampling, 0)], ()).ids == [UNDECIDED]
    assert choose(native, torch.full((1, 1000), -INFINITE), [Place(Sampling(9), 0)], ()).ids == [UNDECIDED]


def test_a_number_at_the_edge_between_two_tokens_is_left_to_torch(
    native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.zeros(1, 1024)
    for number, want in ((0.25, UNDECIDED), (0.25 + 1e-14, UNDECIDED), (0.2501, 256), (0.0, 0), (1 - 2**-53, -1)):
        monkeypatch.setattr("tandem_runtime.engine.compiled_sampler.uniform", lambda *_, number=number: number)
        assert choose(native, logits, [Place(Sampling(9, temperature=1.0), 0)], ()).ids == [want]
    half = Sampling(9, temperature=1.0, top_p=0.5)
    spread = torch.arange(4.0)[None].log()  # half of the mass is that of the likeliest
    assert choose(native, spread, [Place(half, 0)], ()).ids == [UNDECIDED]


def test_the_largest_logit_is_found_where_it_first_stands(native: Native) -> None:
    logits = torch.randn(5, 1003, generator=torch.Generator().manual_seed(0))
    logits[1, 17] = logits[1, 400] = logits[2, 1002] = logits[3, 255] = logits[3, 256] = 9.0
    logits[4] = -1000.0
    got = choose(native, logits, [Place(Sampling(9), 0)] * 5, ()).ids
    assert got == logits.argmax(dim=-1).tolist()
    assert got[1:] == [17, 1002, 255, 0]


@settings(max_examples=60)
@given(values=rows | coarse_rows, count=st.sampled_from([0, 1, 5, 20, 30]), temperature=st.sampled_from([0.0, 1.0]))
def test_log_probabilities_are_those_of_torch(
    native: Native, values: list[float], count: int, temperature: float
) -> None:
    logits = torch.tensor([values, values], dtype=torch.float32)
    asked = Sampling(9, temperature=temperature, top_k=1, logit_bias=((3, 50.0),), logprobs=count)
    places = [Place(asked, 1), Place(Sampling(9), 0)]
    got, want = sample_compiled(native, logits, places), sample(logits, places)
    assert got.ids == want.ids
    assert got.logprobs == [pytest.approx(want.logprobs[0], abs=1e-5), None]
    assert [token for token, _ in got.alternatives[0]] == [token for token, _ in want.alternatives[0]]
    assert [p for _, p in got.alternatives[0]] == pytest.approx([p for _, p in want.alternatives[0]], abs=1e-5)
    assert got.alternatives[1] == []


def test_alternatives_of_a_large_vocabulary_are_the_likeliest(native: Native) -> None:
    logits = large_rows("coarse", 32_000, 4)
    places = [Place(Sampling(9, logprobs=count), 0) for count in (0, 1, 5, 20)]
    got, want = sample_compiled(native, logits, places), sample(logits, places)
    assert [[token for token, _ in row] for row in got.alternatives] == [
        [token for token, _ in row] for row in want.alternatives
    ]


def test_a_row_does_not_depend_on_those_beside_it(native: Native) -> None:
    logits = large_rows("usual", 5000, 12)
    places = [
        Place(Sampling(9, seed=row, **option, presence_penalty=row % 2), 2, range(40))  # type: ignore[arg-type]
        for row, option in enumerate(OPTIONS)
    ]
    together = choose(native, logits, places, ()).ids
    assert together == [choose(native, logits[row : row + 1], places[row : row + 1], ()).ids[0] for row in range(12)]
    assert choose(native, logits[:0], [], ()).ids == []
