"""Runs the plan in its order on some processes. What was kept is read; a run that needs its oracle waits for it."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.bench.contest.plan import ORACLE, Run
from tests.bench.contest.runs import Result, kept, run_one


def execute(runs: Sequence[Run], quick: bool, traces: Path | None, folder: Path, jobs: int) -> dict[Run, Result]:
    """All of them. Raises what a run raises, after which those that have ended are kept."""
    results = read_kept(runs, quick, traces, folder)
    waiting = [run for run in runs if run not in results]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
        ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        task = progress.add_task("runs", total=len(runs), completed=len(results))
        flying: dict[Future[Result], Run] = {}
        try:
            while waiting or flying:
                while len(flying) < jobs and (run := next_run(waiting, results)) is not None:
                    waiting.remove(run)
                    flying[pool.submit(run_one, run, quick, traces, folder)] = run
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    run = flying.pop(future)
                    results[run] = future.result()
                    said = _said(run, results[run])
                    progress.update(task, advance=1, description=said)
                    if not progress.console.is_terminal:
                        print(said, file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def read_kept(runs: Iterable[Run], quick: bool, traces: Path | None, folder: Path) -> dict[Run, Result]:
    """Those that have run already, with this code."""
    found = {run: kept(run, quick, traces, folder) for run in runs}
    return {run: result for run, result in found.items() if result is not None}


def next_run(waiting: Sequence[Run], results: dict[Run, Result]) -> Run | None:
    """The first that can run now: fixed sizes and other oracles are made of what the clairvoyant one found."""
    for run in waiting:
        is_made_of_it = run.policy.startswith(("oracle", "static")) and run.policy != ORACLE
        if not is_made_of_it or ":" in run.policy or run.oracle in results or run.oracle not in waiting:
            return run
    return None


def _said(run: Run, result: Result) -> str:
    got = result.outcome
    return f"{run.scenario} {run.policy} {run.seed}: {got.attainment:.2%}, {got.gpu_h:.1f} GPU-h, {result.cpu_s:.1f} s"
