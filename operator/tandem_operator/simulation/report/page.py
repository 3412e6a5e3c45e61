"""The page: what was run, figures, plots, and every decision with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from tandem_operator.simulation.outcome import Outcome
from tandem_operator.simulation.report.chart import Line, Mark, Point, point_chart, time_chart
from tandem_operator.simulation.report.figures import COLUMNS, pareto_front, row_of
from tandem_operator.simulation.scenario import Scenario

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667; --rule: #d8dce2; --page: #fff; --best: #009e73; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3ad; --rule: #3a4048; --page: #15181c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 960px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; } p { color: var(--soft); }
svg { width: 100%; height: auto; margin: .6rem 0; fill: var(--ink); }
svg .grid { stroke: var(--rule); stroke-width: .7; } svg .axis { stroke: var(--soft); }
svg .mark { stroke: var(--soft); stroke-dasharray: 2 3; } svg .note { fill: var(--soft); }
svg .title { font-size: 13px; font-weight: 600; } svg .title .note { font-weight: 400; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; }
th { color: var(--soft); font-weight: 500; } td.text, th.text { text-align: left; } td.front { color: var(--best); }
details { margin: .5rem 0; } summary { cursor: pointer; }
"""
MOVES_OPEN: Final = 40
"""Decisions that are shown without a click."""


def page(scenario: Scenario, outcomes: Sequence[Outcome]) -> str:
    """One HTML document that needs nothing else. With several outcomes the comparison comes first."""
    parts = [f"<h1>{escape(scenario.name)}</h1>", f"<p>{escape(scenario.describe)}</p>", _table(outcomes)]
    if len(outcomes) > 1:
        parts.append(pareto_chart(outcomes))
    for outcome in outcomes:
        parts.append(f"<h2>{escape(outcome.policy)}</h2>")
        parts += charts(scenario, outcome)
        parts.append(_moves(outcome))
    title = f"{scenario.name}: {', '.join(outcome.policy for outcome in outcomes)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def pareto_chart(outcomes: Sequence[Outcome]) -> str:
    """Attainment over GPU-hours; the front is what no other policy beats in both."""
    front = pareto_front(outcomes)
    points = [
        Point(outcome.policy, outcome.gpu_h, outcome.attainment, outcome.policy.startswith("tandem"))
        for outcome in outcomes
    ]
    joined = [point for point, outcome in zip(points, outcomes, strict=True) if outcome in front]
    return point_chart("Attainment over cost", "GPU-hours", "share of requests that met the objective", points, joined)


def charts(scenario: Scenario, outcome: Outcome) -> list[str]:
    """Plots of one run."""
    series, objective = outcome.series, scenario.settings.objectives[0]
    t = series.t_s
    sizes = [
        time_chart(
            f"{name} replicas",
            "",
            t,
            [
                Line("wanted", want, steps=True),
                Line("ready", ready, steps=True),
                Line("paid for", pods, steps=True, dashed=True),
                Line("busy all the time", needed, dashed=True),
            ],
        )
        for name, want, ready, pods, needed in (
            ("Prefill", series.prefill_want, series.prefill_ready, series.prefill_pods, series.prefill_needed),
            ("Decode", series.decode_want, series.decode_ready, series.decode_pods, series.decode_needed),
        )
    ]
    return [
        time_chart("Load", "requests per second", t, [Line("arrivals", series.arrivals_per_s)]),
        *sizes,
        time_chart(
            "Attainment",
            "share of requests by time of arrival",
            t,
            [Line("met", series.attainment)],
            [Mark(f"asked for: {objective.attainment:g}", objective.attainment)],
            high=1.0,
        ),
        time_chart(
            "Time to first token",
            "seconds",
            t,
            [Line("median", series.ttft_p50_s), Line("99th percentile", series.ttft_p99_s)],
            [Mark(f"objective from {objective.ttft_base_s:g} s", objective.ttft_base_s)],
            log=True,
        ),
        time_chart(
            "Time per output token",
            "seconds",
            t,
            [Line("median", series.tpot_p50_s), Line("99th percentile", series.tpot_p99_s)],
            [Mark(f"objective {objective.tpot_s:g} s", objective.tpot_s)],
        ),
        time_chart("Queue at the router", "requests", t, [Line("waiting", series.queue_requests)]),
    ]


def _table(outcomes: Sequence[Outcome]) -> str:
    front = pareto_front(outcomes) if len(outcomes) > 1 else []
    head = "".join(
        f'<th class="{"text" if index == 0 else ""}">{escape(name)}</th>' for index, name in enumerate(COLUMNS)
    )
    rows = []
    for outcome in outcomes:
        first, *rest = row_of(outcome)
        style = "text front" if outcome in front else "text"
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        rows.append(f'<tr><td class="{style}">{escape(first)}</td>{cells}</tr>')
    note = "<p>Green: no other one attains more for fewer GPU-hours.</p>" if front else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{note}"


def _moves(outcome: Outcome) -> str:
    if not outcome.moves:
        return "<p>No decision changed a target.</p>"
    rows = "".join(
        f"<tr><td>{move.at_s / 60:.1f}</td><td>{move.prefill}</td><td>{move.decode}</td>"
        f'<td class="text">{escape(move.bottleneck)}</td><td class="text">{escape(move.summary)}'
        f"{escape(' | held back by ' + ', '.join(move.suppressed_by)) if move.suppressed_by else ''}</td></tr>"
        for move in outcome.moves
    )
    shown = " open" if len(outcome.moves) <= MOVES_OPEN else ""
    return (
        f"<details{shown}><summary>{len(outcome.moves)} decisions that changed a target</summary><table><thead><tr>"
        '<th>minute</th><th>prefill</th><th>decode</th><th class="text">bottleneck</th><th class="text">why</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></details>"
    )
