"""Who scales best: the law, rivals' formulas at their defaults and tuned, fixed sizes and oracles, on every scenario.

Results are kept by the hash of the code: what was run before is not run again, and a broken-off run goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from tandem_operator.simulation.baselines.catalogue import BASELINES

from tests.bench.contest.compiled import compiled_tree
from tests.bench.contest.execution import execute, read_kept
from tests.bench.contest.figures import HEADS, cells
from tests.bench.contest.markdown import markdown
from tests.bench.contest.plan import DAY, EXTRA, SCENARIOS, Plan
from tests.bench.contest.probes import PROBES
from tests.bench.contest.rows import Row, Table, rows
from tests.bench.contest.targets import check
from tests.bench.contest.tuning import search
from tests.bench.report import describe_machine

TRACES = Path(__file__).parents[3] / "shared/traces"
FULL_SEEDS, FULL_FEW = 10, 2


def main() -> int:
    """Exit code 0 whatever is ahead: this measures, the reader judges."""
    options = parse()
    traces = None if options.imitate or not TRACES.is_dir() else TRACES
    if options.tune:
        prepare(options.interpreted)
        return tune(options.tune.split(","), options.quick, traces, options.jobs)
    usual = (*SCENARIOS, *PROBES) if options.ablations else SCENARIOS if options.quick else (*SCENARIOS, DAY)
    names = tuple(options.scenarios.split(",")) if options.scenarios else usual
    unknown = [name for name in names if name not in (*SCENARIOS, *EXTRA)]
    if unknown:
        print(f"no scenario {', '.join(unknown)}; there are {', '.join((*SCENARIOS, *EXTRA))}", file=sys.stderr)
        return 2
    seeds = options.seeds or (1 if options.quick else FULL_SEEDS)
    policies = tuple(options.policies.split(",")) if options.policies else ()
    plan = Plan(names, options.quick, seeds, FULL_FEW, policies, options.ablations)
    runs = plan.runs()
    if options.kept:
        results = read_kept(runs, options.quick, traces, cache())
        print(f"{len(results)} of {len(runs)} runs are kept; rows have the seeds that were run")
    else:
        prepare(options.interpreted)
        results = execute(runs, options.quick, traces, cache(), options.jobs)
    print(f"{sum(one.cpu_s for one in results.values()):.0f} CPU-seconds went into these runs")
    found = rows(results)
    table = {name: found[name] for name in names if name in found}
    show(table, traces, plan)
    if options.markdown:
        options.markdown.write_text(markdown(table, options.ablations), encoding="utf-8")
    print(json.dumps(table))
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./tests/run bench autoscaler", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, shorter windows, fewer rivals: ten minutes")
    parser.add_argument("--scenarios", help=f"some of {', '.join(SCENARIOS)}; also {', '.join(EXTRA)}")
    parser.add_argument("--policies", help="instead of those of the plan; NAME+tuned has the tuned settings")
    parser.add_argument("--ablations", action="store_true", help="ours without one mechanism each")
    parser.add_argument("--seeds", type=int, help=f"default: {FULL_SEEDS}, quick: 1")
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes (default: %(default)s)"
    )
    parser.add_argument("--kept", action="store_true", help="run nothing: tables of what earlier runs have kept")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables of autoscaler.md there")
    parser.add_argument("--tune", metavar="NAMES", help="search settings of rivals' formulas, or of `all`, and exit")
    parser.add_argument("--imitate", action="store_true", help="no published traces, even where they are")
    parser.add_argument("--interpreted", action="store_true", help="do not compile the simulator first")
    return parser.parse_args()


def prepare(interpreted: bool) -> None:
    """Processes that are started from now on simulate with compiled modules, if there can be any."""
    tree = None if interpreted else compiled_tree(cache().with_name("compiled"), say)
    if tree is not None:
        sys.path.insert(0, str(tree))


def say(text: str) -> None:
    """To standard error, from any process."""
    print(text, file=sys.stderr, flush=True)


def tune(names: list[str], quick: bool, traces: Path | None, jobs: int) -> int:
    """Prints what belongs into contest/tuned.py."""
    names = list(BASELINES) if names == ["all"] else names
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        print(f"no baseline {', '.join(unknown)}; there are {', '.join(BASELINES)}", file=sys.stderr)
        return 2
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        due = {name: pool.submit(search, name, quick, traces, say) for name in names}
        for name, future in due.items():
            print(f"    {name!r}: {future.result()!r},", flush=True)
    return 0


def cache() -> Path:
    """Results of earlier runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem/autoscaler"


def show(table: Table, traces: Path | None, plan: Plan) -> None:
    """A table per scenario, the targets, and where we are not ahead."""
    console = Console(width=max(Console().width, 150))
    form = "quick form" if plan.quick else "full form"
    data = "published traces" if traces else "imitations of the published traces"
    print(f"autoscaler, {form}, {plan.seeds} seed{'s' if plan.seeds > 1 else ''}, {data}; {describe_machine()}")
    for scenario, figures in table.items():
        console.print(_table(scenario, figures))
    targets = RichTable(
        "scenario", "target", "asked for", "measured", "", title="targets", box=None, title_justify="left"
    )
    for one in check(table):
        sign = ">=" if one.target.at_least else "<="
        value = "never" if one.value is None else f"{one.value:.4g}"
        limit = f"{sign} {one.target.limit:g}"
        targets.add_row(one.target.scenario, one.target.what, limit, value, "met" if one.met else "NOT met")
    console.print(targets)
    print("where we are not ahead:")
    behind = [
        (s, p, row["beats_tandem"]) for s, fs in table.items() for p, row in fs.items() if row.get("beats_tandem")
    ]
    for scenario, policy, why in behind:
        print(f"  {scenario}: {policy} {why}")
    if not behind:
        print("  nowhere among what was run")


def _table(scenario: str, figures: dict[str, Row]) -> RichTable:
    shown = RichTable(scenario, *HEADS, "TTFT p99", box=None, title_justify="left")
    for policy, row in sorted(figures.items(), key=lambda item: (-item[1]["attainment"], item[1]["gpu_h"])):
        shown.add_row(
            policy,
            *cells(row),
            f"{row['ttft_p99_s']:.2f} s",
            style="bold" if policy == "tandem" else "dim" if policy.startswith("oracle") else "",
        )
    return shown


if __name__ == "__main__":
    sys.exit(main())
