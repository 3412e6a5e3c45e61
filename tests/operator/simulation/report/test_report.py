"""The page stands alone, shows what the run was, and its axes can be read."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from tandem_operator.simulation.outcome import Move, Outcome, Quantiles, Series
from tandem_operator.simulation.report.chart import Line, Mark, Point, point_chart, time_chart
from tandem_operator.simulation.report.figures import COLUMNS, pareto_front, row_of
from tandem_operator.simulation.report.page import page
from tandem_operator.simulation.report.scale import Scale, linear, logarithmic, round_step, written

from tests.operator.simulation.oracles.test_oracles import SCENARIO

STEPS = tuple(60.0 * index for index in range(10))
ONES = (1,) * 10
SERIES = Series(
    step_s=60.0,
    t_s=STEPS,
    arrivals_per_s=tuple(float(index) for index in range(10)),
    queue_requests=ONES,
    queue_tokens=ONES,
    prefill_ready=ONES,
    prefill_want=(1, 1, 2, 2, 3, 3, 2, 2, 1, 1),
    prefill_pods=ONES,
    decode_ready=ONES,
    decode_want=ONES,
    decode_pods=ONES,
    prefill_needed=(0.5,) * 10,
    decode_needed=(0.5,) * 10,
    attainment=(1.0, None, 0.5, *(1.0,) * 7),
    ttft_p50_s=(0.1,) * 10,
    ttft_p99_s=(0.1, None, 90.0, *(0.2,) * 7),
    tpot_p50_s=(0.02,) * 10,
    tpot_p99_s=(0.03,) * 10,
)


def outcome(policy: str, attainment: float, gpu_h: float, **more: object) -> Outcome:
    return Outcome(
        scenario="even",
        policy=policy,
        seed=0,
        seconds=600.0,
        attainment=attainment,
        gpu_h=gpu_h,
        fluid_gpu_h=2.0,
        ttft_s=Quantiles(0.1, 0.2, 75.0),
        recovery_s=(None, 42.0),
        series=SERIES,
        **more,  # type: ignore[arg-type]
    )


def test_the_page_stands_alone_and_says_every_reason() -> None:
    move = Move(at_s=90.0, prefill=4, decode=2, bottleneck="Prefill", summary="P(W>1 s) < 5%", suppressed_by=("hold",))
    html = page(SCENARIO, [outcome("tandem", 0.99, 5.0, moves=(move,)), outcome("<other>", 0.5, 9.0)])
    assert "P(W&gt;1 s) &lt; 5% | held back by hold" in html
    assert "&lt;other&gt;" in html
    assert "No decision changed a target." in html
    for outside in ("<script", "src=", "href=", "url(", "@import"):
        assert outside not in html
    assert html.count("<svg") == 1 + 2 * 7


def test_every_chart_is_well_formed_and_a_gap_lifts_the_pen() -> None:
    chart = time_chart(
        "A & B", "s", STEPS, [Line("x", SERIES.attainment), Line("y", ONES, steps=True)], [Mark("m", 1.0)]
    )
    ElementTree.fromstring(chart)
    drawn = [part for part in chart.split("<path")[1:] if "stroke-width" in part]
    assert drawn[0].count("M") == 2
    assert drawn[1].count("M") == 1
    ElementTree.fromstring(time_chart("none", "", (), [Line("x", ())], log=True))
    ElementTree.fromstring(point_chart("P", "x", "y", [Point("a<b", 1.0, 0.5), Point("b", 1.0, 0.5, strong=True)]))


def test_the_front_is_what_no_other_beats_in_both() -> None:
    good, cheap, bad, twin = (
        outcome("good", 0.99, 9.0),
        outcome("cheap", 0.9, 5.0),
        outcome("bad", 0.9, 9.0),
        outcome("twin", 0.99, 9.0),
    )
    oracle = outcome("oracle-causal", 1.0, 1.0)
    assert pareto_front([good, cheap, bad, twin, oracle]) == [good, cheap, twin]


def test_a_row_says_never_for_a_step_that_was_not_recovered_from() -> None:
    row = dict(zip(COLUMNS, row_of(outcome("x", 0.987654, 5.0)), strict=True))
    assert row["attainment"] == "98.77%"
    assert row["x fluid"] == "2.50"
    assert row["recovery"] == "never, 42 s"
    assert row["TTFT p50 / p99"] == "100 ms / 75.0 s"


@pytest.mark.parametrize(("rough", "step"), [(0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (23.0, 50.0), (70.0, 100.0)])
def test_steps_of_an_axis_are_round(rough: float, step: float) -> None:
    assert round_step(rough) == pytest.approx(step)


def test_an_axis_covers_its_values_and_clips_what_is_outside() -> None:
    axis = linear([3.0, 17.0], 100.0, 0.0)
    assert axis(0.0) == 100.0
    assert axis(17.0) >= 0.0
    assert axis(1000.0) == 0.0
    assert axis.ticks() == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert logarithmic([0.02, 150.0], 100.0, 0.0).ticks() == pytest.approx([0.01, 0.1, 1.0, 10.0, 100.0, 1000.0])
    assert Scale(0.0, 1.0, 0.0, 10.0)(0.25) == 2.5


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12_000, "12k"), (2.5e6, "2.5M"), (0.05, "0.05"), (1e-5, "1e-05")]
)
def test_numbers_on_an_axis_are_short(value: float, text: str) -> None:
    assert written(value) == text
