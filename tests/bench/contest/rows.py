"""Results of all seeds as one row per scenario and policy, and who is ahead of us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, Final

from tandem_operator.simulation.outcome import Outcome

from tests.bench.contest.plan import Run
from tests.bench.contest.runs import Result
from tests.bench.contest.statistics import attainment_interval, interval, paired

Row = dict[str, Any]
Table = dict[str, dict[str, Row]]
GOAL: Final = 0.99
"""Attainment that every scenario's objective asks for; above it only cost counts."""
SAME: Final = 0.0005
"""Differences of attainment below this are no difference."""


def rows(results: dict[Run, Result]) -> Table:
    """{scenario: {policy: figures}}, the issue's keys and a few more."""
    by_pair: dict[tuple[str, str], list[Run]] = {}
    for run in results:
        by_pair.setdefault((run.scenario, run.policy), []).append(run)
    table: Table = {}
    for (scenario, policy), runs in by_pair.items():
        table.setdefault(scenario, {})[policy] = _row(scenario, sorted(runs, key=lambda run: run.seed), results)
    for figures in table.values():
        for name, row in figures.items():
            if name != "tandem" and "tandem" in figures and not name.startswith("oracle"):
                row["beats_tandem"] = beats(row, figures["tandem"])
    return table


def _row(scenario: str, runs: Sequence[Run], results: dict[Run, Result]) -> Row:
    outcomes = [results[run].outcome for run in runs]
    oracles = _beside(runs, results, lambda run: run.oracle)
    over_o1 = [one.gpu_h / best.gpu_h for one, best in oracles if best.gpu_h]
    over_o3 = [one.met / best.met for one, best in _beside(runs, results, lambda run: run.causal) if best.met]
    churn_o1 = [one.churn / best.churn for one, best in oracles if best.churn]
    pairs = _beside(runs, results, lambda run: Run(scenario, "tandem", run.seed))
    gap, gap_interval = paired([ours for _, ours in pairs], [one for one, _ in pairs], lambda each: each.attainment)
    return {
        "attainment": fmean(one.attainment for one in outcomes),
        "completion": fmean(one.completion for one in outcomes),
        "gpu_h": fmean(one.gpu_h for one in outcomes),
        "gpu_h_over_o1": fmean(over_o1) if over_o1 else None,
        "goodput_over_o3": fmean(over_o3) if over_o3 else None,
        "goodput_per_gpu_h": fmean(one.goodput_per_gpu_h for one in outcomes),
        "recovery_s": recovery(outcomes),
        "churn": fmean(one.churn for one in outcomes),
        "churn_over_o1": fmean(churn_o1) if churn_o1 else None,
        "reversals_per_h": fmean(one.reversals_per_h for one in outcomes),
        "wrong_ratio_s": fmean(one.wrong_ratio_s for one in outcomes),
        "scale_downs": fmean(one.scale_downs for one in outcomes),
        "scale_downs_blind": fmean(one.scale_downs_blind for one in outcomes),
        "ttft_p99_s": fmean(one.ttft_s.p99 for one in outcomes),
        "tpot_p99_s": fmean(one.tpot_s.p99 for one in outcomes),
        "flips": fmean(one.flips for one in outcomes),
        "scrapes_lost": fmean(one.scrapes_lost for one in outcomes),
        "wasted_startups": fmean(one.wasted_startups for one in outcomes),
        "seeds": len(outcomes),
        "ci": {
            "attainment": attainment_interval(outcomes),
            "gpu_h_over_o1": interval(over_o1) if over_o1 else None,
            "goodput_over_o3": interval(over_o3) if over_o3 else None,
            "tandem_minus_this": (gap, *gap_interval),
        },
    }


def _beside(
    runs: Sequence[Run], results: dict[Run, Result], other: Callable[[Run], Run]
) -> list[tuple[Outcome, Outcome]]:
    """Each outcome with that of the run it is compared with, where there is one."""
    return [(results[run].outcome, results[other(run)].outcome) for run in runs if other(run) in results]


def recovery(outcomes: Sequence[Outcome]) -> float | None:
    """Mean over seeds of the slowest recovery of a run; None when one never came, or nothing stepped."""
    slowest: list[float] = []
    for outcome in outcomes:
        if not outcome.recovery_s or None in outcome.recovery_s:
            return None
        slowest.append(max(one for one in outcome.recovery_s if one is not None))
    return fmean(slowest) if slowest else None


def beats(row: Row, ours: Row, goal: float = GOAL) -> str:
    """Why a policy is ahead of us by the objective (attainment up to the goal, then cost); empty when it is not."""
    theirs_met, ours_met = row["attainment"] >= goal, ours["attainment"] >= goal
    if theirs_met and ours_met:
        saved = 1.0 - row["gpu_h"] / ours["gpu_h"]
        return f"both meet the objective, it with {saved:.1%} fewer GPU-hours" if saved > SAME else ""
    if theirs_met:
        return f"meets the objective ({row['attainment']:.2%}), we do not ({ours['attainment']:.2%})"
    if not ours_met and row["attainment"] > ours["attainment"] + SAME:
        extra = row["gpu_h"] / ours["gpu_h"]
        return f"attains {row['attainment']:.2%}, we {ours['attainment']:.2%}, at {extra:.2f} times our GPU-hours"
    return ""
