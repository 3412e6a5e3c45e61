"""Arrivals and lengths of a load, decided beforehand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import mean, pstdev

import pytest
from tandem_runtime.bench.schedule import Due, Length, poisson_or_gamma, read_trace, synthetic


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gaps_have_the_rate_and_the_variation_that_were_asked_for(cv: float) -> None:
    times = list(poisson_or_gamma(50.0, cv, 400.0, Random(1)))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert 1 / mean(gaps) == pytest.approx(50, rel=0.06)
    assert pstdev(gaps) / mean(gaps) == pytest.approx(cv, rel=0.1)
    assert times == sorted(times)
    assert times[-1] < 400


def test_lengths_have_the_mean_and_the_variation_that_were_asked_for() -> None:
    random = Random(2)
    drawn = [Length(500, 0.7).draw(random) for _ in range(20_000)]
    assert mean(drawn) == pytest.approx(500, rel=0.03)
    assert pstdev(drawn) / mean(drawn) == pytest.approx(0.7, rel=0.05)
    assert {Length(128).draw(random) for _ in range(5)} == {128}


def test_the_same_seed_is_the_same_load_and_classes_come_by_their_weights() -> None:
    def made() -> list[Due]:
        random = Random(3)
        times = poisson_or_gamma(100, 1, 20, random)
        return list(synthetic(times, Length(10, 1), Length(5), [("chat", 3.0), ("batch", 1.0)], random))

    first = made()
    assert first == made()
    share = sum(due.request_class == "chat" for due in first) / len(first)
    assert share == pytest.approx(0.75, abs=0.04)


LAYOUTS = {
    "dates.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.6805900,396,109\n",
    "milliseconds.csv": "timestamp_ms,prompt_len,output_len\n6000,374,44\n10000,396,109\n",
    "lines.jsonl": '{"timestamp": 500, "input_length": 374, "output_length": 44, "hash_ids": [1]}\n'
    '{"timestamp": 4500, "input_length": 396, "output_length": 109}\n',
    "ours.csv": "arrived_s,prompt_tokens,output_tokens,class\n1.5,374,44,\n5.5,396,109,\n",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_traces_are_read_in_the_layouts_in_which_they_are_published(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(LAYOUTS[name])
    assert read_trace(file) == [Due(0.0, 374, 44), Due(4.0, 396, 109)]
    assert [due.at for due in read_trace(file, speed=2.0)] == [0.0, 2.0]
    assert len(read_trace(file, seconds=3.0)) == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a,b\n1,2\n", "no column of times"),
        ("timestamp_ms,prompt_len\n1,2\n", "none of the columns output_tokens"),
        ("timestamp_ms,prompt_len,output_len\n1,many,2\n", "line 2: 'many' is not a number"),
        ("timestamp_ms,prompt_len,output_len\nsoon,1,2\n", "line 2: the time"),
        ("timestamp_ms,prompt_len,output_len\n", "no request"),
    ],
)
def test_a_trace_that_cannot_be_read_is_refused_with_file_and_line(
    content: str, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(content)
    with pytest.raises(ValueError, match=complaint):
        read_trace(file)
