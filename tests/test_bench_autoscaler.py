"""The autoscaler benchmark: its plan, its cache, its intervals, and how it says who is ahead."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tandem_operator.simulation.outcome import Outcome, Series

from tests.bench.contest import compiled, plan
from tests.bench.contest.execution import next_run, read_kept
from tests.bench.contest.plan import BEST, DAY, ORACLE, ORACLES, SCENARIOS, Plan, Run
from tests.bench.contest.rows import beats, recovery, rows
from tests.bench.contest.runs import Result, code_hash, load, place, thin
from tests.bench.contest.statistics import attainment_interval, interval, paired
from tests.bench.contest.targets import TARGETS, check


def outcome(policy: str, attainment: float, gpu_h: float, seed: int = 0, **more: object) -> Outcome:
    times = tuple(10.0 * index for index in range(60))
    series = Series(
        step_s=10.0, t_s=times, arrivals_per_s=(5.0,) * 60, attainment=(1.0,) * 30 + (2 * attainment - 1.0,) * 30
    )
    figures: dict[str, object] = {"churn": 4, "met": int(3000 * attainment), **more}
    return Outcome(
        scenario="S1", policy=policy, seed=seed, seconds=600.0, attainment=attainment, gpu_h=gpu_h, series=series,
        **figures,  # type: ignore[arg-type]
    )  # fmt: skip


def results(**attained: float) -> dict[Run, Result]:
    """One seed of S1; the oracles cost 10 GPU-hours, everybody else 15."""
    return {
        Run("S1", name.replace("_", "-"), 0): Result(outcome(name, value, 10.0 if "oracle" in name else 15.0))
        for name, value in attained.items()
    }


def test_oracles_are_run_once_for_scenarios_that_differ_only_in_what_is_seen() -> None:
    runs = Plan(SCENARIOS, quick=True, seeds=1, few=1).runs()
    assert len(runs) == len(set(runs))
    assert sorted(run.scenario for run in runs if run.policy == ORACLE) == sorted(
        set(SCENARIOS) - {"S1-30s", "S1-3s", "S6-metricloss", "S6-outage", "S6-modelerror", "S7-noflip"}
    )
    assert all(run.oracle in runs and run.causal in runs for run in runs)
    assert {run.scenario for run in runs if run.policy == "tandem"} == set(SCENARIOS)


def test_the_full_plan_has_every_formula_at_its_defaults_and_as_tuned_and_more_seeds_for_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "TUNED", {"fixed-ratio": {"target": 0.5}, "token-velocity": {"spare": 2}})
    monkeypatch.setattr(plan, "BEST", ("token-velocity+tuned",))
    runs = Plan(("S2",), quick=False, seeds=3, few=2).runs()
    seeds = {policy: sum(run.policy == policy for run in runs) for policy in {run.policy for run in runs}}
    assert {seeds[policy] for policy in ("tandem", ORACLE, "token-velocity+tuned")} == {3}
    assert seeds["fixed-ratio"] == seeds["fixed-ratio+tuned"] == seeds["static-mean"] == 2
    assert "saturation" in seeds
    assert "saturation+tuned" not in seeds  # its search found nothing better than the defaults


def test_the_full_plan_begins_with_what_tells_most() -> None:
    runs = Plan((*SCENARIOS, DAY), quick=False, seeds=10, few=2).runs()
    assert len(runs) == len(set(runs))
    last_of_first = max(runs.index(Run(name, "tandem", 1)) for name in SCENARIOS)
    assert all(run.policy in (*ORACLES, "tandem") and run.seed < 2 for run in runs[:last_of_first])
    assert runs.index(Run("S9", "fixed-ratio", 1)) < runs.index(Run("S1", "tandem", 2))
    assert {run.policy for run in runs if run.scenario == DAY} == {*ORACLES, "tandem", *BEST}
    assert all(run.scenario == DAY for run in runs[-20:])


def test_a_broken_off_plan_goes_on_where_it_was(tmp_path: Path) -> None:
    runs = [Run("S2", ORACLE, 0), Run("S2", "static-peak", 0), Run("S2", "tandem", 0)]
    assert next_run(runs, {}) == runs[0]
    assert next_run(runs[1:], {}) == runs[1]  # nobody else will make its oracle: it makes it itself
    assert next_run([runs[1], runs[0]], {}) == runs[0]
    made = Result(outcome("tandem", 0.9, 10.0), cpu_s=1.0)
    path = place(runs[2], True, None, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(made))
    assert read_kept(runs, True, None, tmp_path) == {runs[2]: made}
    path.write_bytes(b"{")
    assert read_kept(runs, True, None, tmp_path) == {}


def test_seeds_that_are_missing_pair_nobody_with_another() -> None:
    found = results(tandem=0.9, oracle_clairvoyant=1.0, oracle_causal=0.8)
    found[Run("S1", "tandem", 3)] = Result(outcome("tandem", 0.5, 30.0, seed=3))
    assert rows(found)["S1"]["tandem"]["gpu_h_over_o1"] == pytest.approx(1.5)


def test_a_row_has_the_agreed_keys_and_ratios_to_the_oracles() -> None:
    row = rows(results(tandem=0.9, oracle_clairvoyant=1.0, oracle_causal=0.8))["S1"]["tandem"]
    agreed = (
        "attainment completion gpu_h gpu_h_over_o1 goodput_over_o3 recovery_s churn reversals_per_h wrong_ratio_s "
        "scale_downs ci"
    )
    assert set(agreed.split()) <= row.keys()
    assert row["gpu_h_over_o1"] == pytest.approx(1.5)
    assert row["goodput_over_o3"] == pytest.approx(0.9 / 0.8)
    low, high = row["ci"]["attainment"]
    assert 0.8 < low < 0.9 < high < 1.0


def test_attainment_counts_to_the_goal_and_then_cost() -> None:
    def row(attainment: float, gpu_h: float) -> dict[str, float]:
        return {"attainment": attainment, "gpu_h": gpu_h}

    assert beats(row(0.995, 9.0), row(0.999, 10.0)) == "both meet the objective, it with 10.0% fewer GPU-hours"
    assert beats(row(0.999, 11.0), row(0.991, 10.0)) == ""
    assert beats(row(0.99, 99.0), row(0.98, 1.0)).startswith("meets the objective (99.00%), we do not (98.00%)")
    assert beats(row(0.95, 20.0), row(0.94, 10.0)) == "attains 95.00%, we 94.00%, at 2.00 times our GPU-hours"
    assert beats(row(0.93, 1.0), row(0.94, 10.0)) == ""


def test_recovery_is_of_the_slowest_step_and_none_when_one_never_came() -> None:
    assert (
        recovery([outcome("x", 1.0, 1.0, recovery_s=(10.0, 30.0)), outcome("x", 1.0, 1.0, recovery_s=(50.0,))]) == 40.0
    )
    assert recovery([outcome("x", 1.0, 1.0, recovery_s=(10.0, None))]) is None
    assert recovery([outcome("x", 1.0, 1.0)]) is None


def test_intervals_contain_the_figure_and_have_no_width_without_spread() -> None:
    assert interval([2.0]) == (2.0, 2.0)
    low, high = interval([1.0, 2.0, 3.0, 4.0])
    assert 1.0 <= low < 2.5 < high <= 4.0
    assert attainment_interval([outcome("x", 1.0, 1.0)]) == (1.0, 1.0)
    ours = [outcome("a", 0.9, 1.0, seed) for seed in range(3)]
    theirs = [outcome("b", 0.7, 1.0, seed) for seed in range(2)]
    gap, (low, high) = paired(ours, theirs, lambda one: one.attainment)
    assert (gap, low, high) == pytest.approx((0.2, 0.2, 0.2))


def test_every_target_is_checked_where_it_was_run() -> None:
    assert {target.scenario for target in TARGETS} <= set(SCENARIOS)
    checked = check(rows(results(tandem=0.9, oracle_clairvoyant=1.0, oracle_causal=0.8)))
    assert [(one.target.what, one.met) for one in checked] == [
        ("attainment", True),
        ("recovery s", False),
        ("GPU-h over O1", True),
    ]


def test_results_are_kept_by_what_the_code_does(tmp_path: Path) -> None:
    code = code_hash(("operator/tandem_operator/scaling/*.py",))
    assert len(code) == 12
    ours, theirs = (place(Run("S1", name, 0), True, None, tmp_path) for name in ("tandem", "queue-length"))
    assert ours.parent == theirs.parent == tmp_path / "quick/S1"
    assert ours.name.startswith("tandem-0-")
    assert ours.stem.rpartition("-")[2] != theirs.stem.rpartition("-")[2]
    kept = thin(outcome("x", 0.5, 1.0))
    assert kept.attainment == 0.5
    assert kept.series.prefill_want == ()


def test_an_outage_stays_inside_the_quick_form() -> None:
    made = load("S6-outage", True, None)
    ((start, stop),) = made.metrics.outages
    assert 0 < start < stop < made.until_s
    assert made.blind_s == made.metrics.outages


def test_a_compiled_simulator_is_not_shared_by_checkouts_as_it_links_to_the_law_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = compiled._key()
    for name, home in compiled.HOMES.items():
        (tmp_path / home.name).symlink_to(home)
        monkeypatch.setitem(compiled.HOMES, name, tmp_path / home.name)
    assert compiled._key() != here
