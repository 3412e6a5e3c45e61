"""One run in a process of its own, kept by the hash of the code that it depends on: a broken-off benchmark goes on."""

from __future__ import annotations

import ast
import functools
import gc
import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
from tandem_operator.scaling.decision import Targets
from tandem_operator.simulation.baselines.catalogue import BASELINES, tuned
from tandem_operator.simulation.contestants import contestant
from tandem_operator.simulation.oracles.clairvoyant import REPAIRS, Clairvoyant, clairvoyant
from tandem_operator.simulation.oracles.schedule import Schedule
from tandem_operator.simulation.outcome import Outcome, Series
from tandem_operator.simulation.policy import ScalingPolicy
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.scenarios import scenario

from tests.bench.contest.plan import ORACLE, Run
from tests.bench.contest.probes import PROBES, probe
from tests.bench.contest.tuned import TUNED

ROOT: Final = Path(__file__).parents[3]
ENGINE: Final = ("operator/tandem_operator/simulation/*.py", "runtime/tandem_runtime/policy/**/*.py")
PROBING: Final = ("tests/bench/contest/probes.py",)
NOT_ENGINE: Final = ("contestants.py", "replay.py", "tandem.py")
OURS: Final = ("operator/tandem_operator/scaling/**/*.py", "operator/tandem_operator/performance/**/*.py")
RIVALS: Final = ("operator/tandem_operator/simulation/baselines/**/*.py",)
ORACLES: Final = ("operator/tandem_operator/simulation/oracles/**/*.py",)
QUICK_END_S: Final = {"S1": 1200.0, "S3": 900.0, "S6": 1800.0}
"""The quick form is cut here: the heaviest loads, of which ten minutes or so must do."""
QUICK_REPAIRS: Final = 2


class Result(msgspec.Struct, frozen=True):
    """What is kept: the outcome with two columns of its series, and the schedule if it is an oracle's."""

    outcome: Outcome
    sizes: tuple[tuple[int, int], ...] = ()
    present: tuple[tuple[int, int], ...] = ()
    cpu_s: float = 0.0
    """That it took."""


def load(name: str, quick: bool, traces: Path | None) -> Scenario:
    """The scenario in the form that is run."""
    if name in PROBES:
        return probe(name, quick, traces)
    made = scenario(name, quick, traces)
    end = QUICK_END_S.get(name.partition("-")[0]) if quick else None
    if end is None:
        return made
    share = end / made.until_s
    gaps = tuple((start * share, start * share + (stop - start)) for start, stop in made.metrics.outages)
    metrics = replace(made.metrics, outages=gaps)
    return replace(made, end_s=end, report_from_s=made.report_from_s * share, metrics=metrics, blind_s=gaps)


def run_one(run: Run, quick: bool, traces: Path | None, folder: Path) -> Result:
    """From the cache or anew. Raises what the simulator raises."""
    found_before = kept(run, quick, traces, folder)
    if found_before is not None:
        return found_before
    started = time.process_time()
    gc.disable()  # nothing of a run is a cycle worth looking for, and looking takes a tenth of it
    made = load(run.scenario, quick, traces)
    if run.policy == ORACLE:
        found = clairvoyant(made, run.seed, QUICK_REPAIRS if quick else REPAIRS)
        result = Result(thin(found.outcome), pairs(found.schedule.sizes), pairs(found.present))
    else:
        policy = named(run, made, quick, traces, folder)
        result = Result(thin(simulate(made, policy, run.seed)))
    gc.enable()
    result = msgspec.structs.replace(result, cpu_s=time.process_time() - started)
    path = place(run, quick, traces, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(msgspec.json.encode(result))
    part.replace(path)
    return result


def kept(run: Run, quick: bool, traces: Path | None, folder: Path) -> Result | None:
    """What a run with the same code came to, if there was one."""
    try:
        return msgspec.json.decode(place(run, quick, traces, folder).read_bytes(), type=Result)
    except (OSError, msgspec.DecodeError):
        return None


def named(run: Run, made: Scenario, quick: bool, traces: Path | None, folder: Path) -> ScalingPolicy:
    """The policy of a run; a tuned one has the settings that were found on the training part."""
    name, _, form = run.policy.partition("+")
    if form:
        return replace(tuned(BASELINES[name], TUNED.get(name, {})), name=run.policy)

    def best() -> Clairvoyant:
        found = run_one(run.oracle, quick, traces, folder)
        sizes = tuple(Targets(*pair) for pair in found.sizes)
        present = tuple(Targets(*pair) for pair in found.present)
        return Clairvoyant(Schedule(name=ORACLE, sizes=sizes), found.outcome, present)

    return contestant(name, made, best)


def pairs(sizes: Iterable[Targets]) -> tuple[tuple[int, int], ...]:
    """As they are kept."""
    return tuple((one.prefill, one.decode) for one in sizes)


def thin(outcome: Outcome) -> Outcome:
    """Without what only plots need; attainment over time stays, for intervals."""
    series = outcome.series
    kept = Series(
        step_s=series.step_s, t_s=series.t_s, arrivals_per_s=series.arrivals_per_s, attainment=series.attainment
    )
    return msgspec.structs.replace(outcome, series=kept, moves=())


def place(run: Run, quick: bool, traces: Path | None, folder: Path) -> Path:
    """Where the result of a run is kept. Another code, another place."""
    kind = OURS if run.policy.startswith("tandem") else ORACLES if run.policy.startswith("oracle") else RIVALS
    if run.policy.startswith("static"):
        kind = ORACLES
    code = code_hash((*ENGINE, *kind, *(PROBING if run.scenario in PROBES else ())))
    name, _, form = run.policy.partition("+")
    if form:
        code += f"-{hashlib.sha256(repr(sorted(TUNED.get(name, {}).items())).encode()).hexdigest()[:6]}"
    if quick:
        code = hashlib.sha256(f"{code} {QUICK_END_S} {QUICK_REPAIRS}".encode()).hexdigest()[:12]
    form = ("quick" if quick else "full") + ("-traces" if traces else "")
    return folder / form / run.scenario / f"{run.policy}-{run.seed}-{code}.json"


@functools.cache
def code_hash(patterns: tuple[str, ...]) -> str:
    """Of what the code does: comments and docstrings do not count."""
    digest = hashlib.sha256()
    for path in _files(patterns):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                body[:] = [line for line in body if not _is_text(line)] or body[:1]
        digest.update(f"{path.relative_to(ROOT)}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:12]


def _is_text(line: ast.AST) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _files(patterns: Iterable[str]) -> list[Path]:
    found = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(path for path in found if path.name not in NOT_ENGINE)
