"""`tandem simulate`: a scenario or a trace in, what policies make of it out: table, JSON, page with plots, records."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tandem_operator.cli.scenario_options import add_scenario_options, chosen_scenario
from tandem_operator.cli.settings_check import refuse_nonsense
from tandem_operator.scaling.decision import Record
from tandem_operator.simulation.contestants import contestant, names
from tandem_operator.simulation.oracles.clairvoyant import Clairvoyant, clairvoyant
from tandem_operator.simulation.outcome import Outcome
from tandem_operator.simulation.replay import differences, read_records
from tandem_operator.simulation.report.figures import COLUMNS, pareto_front, row_of
from tandem_operator.simulation.report.page import page
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.scenarios import NAMES, scenario

COMPARED = (
    "tandem",
    "hpa-utilisation",
    "hpa-kv-queue",
    "queue-length",
    "concurrency-panic",
    "hybrid-regression",
    "saturation",
    "token-capacity",
    "token-velocity",
    "static-peak",
)
"""What `--compare` runs when no policy is named: one of each kind."""
VARIANTS = {
    "30s": "pods start in 30 s",
    "3s": "pods start in 3 s",
    "nohits": "without prefix reuse",
    "metricloss": "a fifth of the scrapes fails",
    "outage": "minutes without any metric",
    "modelerror": "the policy's model is 30% wrong",
    "gpucap": "seven tenths of the devices that the peak needs",
    "delay": "scrapes every 15 s",
    "noflip": "pods have one role for life",
    "day": "the whole of it",
}
WIDE = 130
"""Columns of a terminal that shows every figure; a narrower one leaves some to --json."""
LEFT_OUT = ("completed", "met per GPU-h", "TPOT p50 / p99", "churn", "reversals/h")
Report = Callable[[str, float], None]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommand and its options."""
    parser = commands.add_parser(
        "simulate",
        help="run a load against a fleet in virtual time, under the scaling law or a rival's formula",
        description="Runs a load against a simulated fleet, request by request. Needs no cluster and no GPU.",
        epilog="Examples: tandem simulate S1 --html report.html | tandem simulate --trace chat.csv --compare | "
        "tandem simulate --rate 20 --minutes 30 --policy hpa-utilisation:target=0.5",
    )
    add_scenario_options(parser)
    parser.add_argument(
        "--policy",
        action="append",
        metavar="NAME",
        help="who scales (default: tandem); may be given again; fields of a rival's formula follow a colon; "
        "static:P:D is a fixed size; --list names them",
    )
    parser.add_argument("--compare", action="store_true", help="several policies side by side, with the Pareto front")
    parser.add_argument("--seed", type=int, default=0, help="of arrivals, lengths and start-ups (default: 0)")
    parser.add_argument("--json", action="store_true", help="print outcomes as one JSON array instead of a table")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots and the reason of every decision")
    parser.add_argument("--record", metavar="FILE", help="write every decision as a JSON line that --replay can run")
    parser.add_argument("--replay", metavar="FILE", help="decide again from records, say what differs, and exit")
    parser.add_argument("--list", action="store_true", help="print the names of scenarios and policies, and exit")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Exit code: 0, or 1 when a replay differs or the input is wrong."""
    try:
        if options.list:
            return _list()
        if options.replay:
            return _replay(options.replay)
        scenario = chosen_scenario(options)
        policies = options.policy or (COMPARED if options.compare else ("tandem",))
        if options.record and len(policies) > 1:
            raise ValueError("--record takes the decisions of one policy; name one with --policy")
        outcomes = list(_outcomes(scenario, policies, options))
        _print(scenario, outcomes, options)
        if options.html:
            Path(options.html).write_text(page(scenario, outcomes), encoding="utf-8")
            print(f"wrote {options.html}", file=sys.stderr)
    except OSError as error:
        print(f"tandem simulate: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"tandem simulate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tandem simulate: stopped", file=sys.stderr)
        return 130
    return 0


def _outcomes(scenario: Scenario, policies: tuple[str, ...], options: argparse.Namespace) -> Iterator[Outcome]:
    with ExitStack() as stack:
        bar = stack.enter_context(_bar())
        oracle = functools.cache(lambda: _oracle(scenario, options.seed, bar))
        contestants = [contestant(name, scenario, oracle) for name in policies]  # wrong names before the first run
        write = stack.enter_context(_recorder(options.record)) if options.record else None
        for policy in contestants:
            yield simulate(scenario, policy, options.seed, record=write, progress=functools.partial(bar, policy.name))


def _oracle(scenario: Scenario, seed: int, report: Report) -> Clairvoyant:
    return clairvoyant(scenario, seed, progress=functools.partial(report, "best schedule in hindsight"))


@contextmanager
def _bar() -> Iterator[Report]:
    """Reports shares done by name; drawn on standard error of a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = functools.cache(lambda name: progress.add_task(name, total=1.0))

        def report(name: str, share: float) -> None:
            progress.update(tasks(name), completed=share)

        yield report


@contextmanager
def _recorder(path: str) -> Iterator[Callable[[Record], None]]:
    encode = msgspec.json.Encoder().encode
    with open(path, "wb") as file:

        def write(record: Record) -> None:
            file.write(encode(record) + b"\n")

        yield write


def _print(scenario: Scenario, outcomes: list[Outcome], options: argparse.Namespace) -> None:
    if options.json:
        print(msgspec.json.encode(outcomes).decode())
        return
    front = pareto_front(outcomes) if len(outcomes) > 1 else []
    console = Console()
    shown = [index for index, name in enumerate(COLUMNS) if console.width >= WIDE or name not in LEFT_OUT]
    table = Table(title=f"{scenario.name}: {scenario.describe}", title_justify="left", box=None)
    for index in shown:
        table.add_column(COLUMNS[index], justify="left" if index == 0 else "right", overflow="fold")
    for outcome in outcomes:
        row = row_of(outcome)
        table.add_row(*(row[index] for index in shown), style="green" if outcome in front else "")
    console.print(table)
    if front:
        print(f"no other attains more for fewer GPU-hours: {', '.join(outcome.policy for outcome in front)}")
    if len(outcomes) == 1 and outcomes[0].moves:
        last = outcomes[0].moves[-1]
        print(f"{len(outcomes[0].moves)} decisions changed a target; the last, at {last.at_s:.0f} s: {last.summary}")


def _replay(path: str) -> int:
    count = differing = 0
    with open(path, "rb") as file:
        for record in read_records(file):
            count += 1
            refuse_nonsense(record.settings, f"settings of the record at {record.time:.1f} s")
            found = differences(record)
            if found:
                differing += 1
                print(f"{record.key} at {record.time:.1f} s, {record.policy}:")
                print("".join(f"  {line}\n" for line in found), end="")
    if not count:
        raise ValueError(f"{path} holds no decision records; --record FILE writes some")
    print(f"{count} decisions run again, {differing or 'none'} differ{'s' if differing == 1 else ''}")
    return 1 if differing else 0


def _list() -> int:
    table = Table("scenario", "what comes", box=None)
    for name in NAMES:
        base, _, variant = name.partition("-")
        described = scenario(base, quick=True).describe
        table.add_row(name, f"{described}; {VARIANTS[variant]}" if variant else described)
    console = Console()
    console.print(table)
    print(f"\npolicies: {', '.join(names())}, static:P:D")
    return 0
