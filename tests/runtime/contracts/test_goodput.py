"""The goodput rule, and the file of classes that it is about."""

from __future__ import annotations

from math import inf
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts.classes import Classes, read_classes, write_classes
from tandem_runtime.contracts.goodput import (
    TPOT_EDGES_SECONDS,
    TTFT_EDGES_SECONDS,
    ClassTotals,
    End,
    Histogram,
    SloClass,
    Times,
    Verdict,
    judge,
    meets,
)

SLO = SloClass(name="chat", ttft_base_s=1.0, ttft_per_thousand_tokens_s=0.06, tpot_s=0.05, priority=10)


def test_the_bound_of_the_first_token_grows_with_the_prompt() -> None:
    assert SLO.ttft_bound_s(0) == 1.0
    assert SLO.ttft_bound_s(10_000) == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("end", "times", "ended_s", "verdict"),
    [
        (End.COMPLETED, Times(101, 1.06, 6.06), 6.1, Verdict.MET),
        (End.COMPLETED, Times(101, 1.07, 2.0), 2.0, Verdict.MISSED),
        (End.COMPLETED, Times(101, 1.0, 6.1), 6.1, Verdict.MISSED),
        (End.COMPLETED, Times(1, 0.5, 0.5), 0.5, Verdict.MET),
        (End.COMPLETED, Times(0), 0.5, Verdict.MISSED),
        (End.SHED, Times(), 0.0, Verdict.MISSED),
        (End.FAILED, Times(50, 0.5, 1.0), 9.0, Verdict.MISSED),
        (End.REFUSED, Times(), 0.0, Verdict.OUT),
        (End.CANCELLED, Times(), 1.0, Verdict.OUT),
        (End.CANCELLED, Times(), 1.2, Verdict.MISSED),
    ],
)
def test_a_request_is_met_iff_it_completed_and_both_times_are_within_the_objective(
    end: End, times: Times, ended_s: float, verdict: Verdict
) -> None:
    assert judge(SLO, 1000, end, times, ended_s) is verdict


def test_the_rule_for_plain_numbers_is_the_same() -> None:
    assert meets(1.0, 1.0, 0.05, 0.05)
    assert not meets(1.01, 1.0, 0.0, 0.05)
    assert not meets(0.5, 1.0, 0.051, 0.05)


ENDINGS = st.tuples(
    st.sampled_from(list(End)),
    st.builds(Times, st.integers(0, 50), st.none() | st.floats(0, 3), st.none() | st.floats(3, 9)),
    st.floats(0, 10),
)


@given(st.lists(ENDINGS, max_size=30))
def test_every_arrival_ends_in_exactly_one_way(endings: list[tuple[End, Times, float]]) -> None:
    totals = ClassTotals(SLO)
    verdicts = []
    for end, times, ended_s in endings:
        totals.arrive(10)
        verdicts.append(totals.finish(10, end, times, ended_s))
    ends = (totals.met, totals.missed, totals.shed, totals.failed, totals.cancelled, totals.refused)
    assert sum(ends) == totals.arrivals == len(endings)
    assert totals.met == verdicts.count(Verdict.MET)
    assert totals.counted == len(endings) - verdicts.count(Verdict.OUT)
    assert 0 <= totals.attainment <= 1
    assert 0 <= totals.completion <= 1


def test_histogram_edges_are_those_of_the_contract() -> None:
    assert TTFT_EDGES_SECONDS[0] == 0.001
    assert TTFT_EDGES_SECONDS[-1] <= 600 < TTFT_EDGES_SECONDS[-1] * 1.5
    assert TPOT_EDGES_SECONDS[0] == 0.0001
    assert TPOT_EDGES_SECONDS[-1] <= 10 < TPOT_EDGES_SECONDS[-1] * 1.5
    histogram = Histogram((1.0, 2.0))
    assert histogram.quantile(0.5) is None
    for value in (0.5, 1.0, 1.5, 3.0):
        histogram.add(value)
    assert histogram.counts == [2, 1, 1]
    assert [histogram.quantile(share) for share in (0.5, 0.75, 1.0)] == [1.0, 2.0, inf]


def test_without_a_file_there_is_one_class_that_promises_nothing_and_every_name_will_do() -> None:
    classes = Classes()
    assert classes.default.name == "default"
    assert classes.find("whatever") is classes.default
    assert judge(classes.default, 1, End.COMPLETED, Times(5, 100.0, 900.0), 900.0) is Verdict.MET
    assert classes.strictest_tpot_s == inf


def test_the_file_of_classes_is_read_as_it_was_written_and_its_first_class_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "classes.json"
    batch = SloClass(name="batch", ttft_base_s=60.0, tpot_s=1.0, attainment=0.9)
    file.write_bytes(write_classes([SLO, batch]))
    classes = read_classes(file)
    assert classes.all == [SLO, batch]
    assert classes.find("") == SLO
    assert classes.find("batch") == batch
    assert classes.find("gold") is None
    assert classes.strictest_tpot_s == 0.05


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"classes": []}, "names no class"),
        ({"classes": [{"name": "a", "ttft_base_s": 1, "tpot_s": 1}] * 2}, "same name"),
        ({"classes": [{"name": "a", "ttft_base_s": 0, "tpot_s": 1}]}, "ttft_base_s is 0"),
        ({"classes": [{"name": "a", "ttft_base_s": 1}]}, "tpot_s is inf"),
        ({"classes": [{"name": "a b", "ttft_base_s": 1, "tpot_s": 1}]}, "'a b' is not"),
        ({"classes": [{"name": "a", "ttft_base_s": 1, "tpot_s": 1, "attainment": 99}]}, "attainment is 99"),
        ({"classes": [], "schema": 9}, "schema 9"),
        ({"classes": [{"name": 5}]}, "not a file of classes"),
        ({"clases": []}, "not a file of classes"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(tmp_path: Path, content: object, complaint: str) -> None:
    file = tmp_path / "classes.json"
    file.write_bytes(msgspec.json.encode(content))
    with pytest.raises(ValueError, match=complaint):
        read_classes(file)
    with pytest.raises(ValueError, match="no classes file"):
        read_classes(tmp_path / "absent.json")
