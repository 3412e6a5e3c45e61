"""The gate behind ./tests/run: the stages in order, each timed; stops at the first that fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
MISSED = 3
"""Exit code of a benchmark that ran and missed one of its limits (tests/bench/report.py)."""
BIN = Path(sys.executable).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem"
Command = list[str]


def lint(_: list[str]) -> list[Command]:
    """Style, types, layers, and generated files that must be fresh."""
    return [
        [f"{BIN}/ruff", "check", "."],
        [f"{BIN}/ruff", "format", "--check", "."],
        [f"{BIN}/mypy", f"--cache-dir={CACHE}/mypy"],
        [f"{BIN}/lint-imports"],
        [sys.executable, "-m", "tandem_operator.api.crd", "--check"],
        [sys.executable, "-m", "tandem_operator.placement.catalogue", "--check"],
    ]


WEIGHTY = (
    *(f"tests/runtime/{part}" for part in ("bench", "fetch", "router", "server", "transfer")),
    *(f"tests/runtime/{part}" for part in ("models", "ops")),
    *(
        f"tests/runtime/engine/test_{name}.py"
        for name in ("compiled_sampler", "drafts_of_models", "int8_kv", "sampler", "torch_executor", "windows")
    ),
    "tests/operator/test_process.py",
)
"""Tests that talk over loopback and wait for silence, and those that load torch: not for every keystroke."""


def unit(arguments: list[str]) -> list[Command]:
    """Everything that starts no program, waits for no peer, loads no torch and asks no cluster, on all cores."""
    others = [f"--ignore={path}" for path in ("tests/chart", "tests/gpu", "tests/processes", *WEIGHTY)]
    return [[sys.executable, "-m", "pytest", "-q", "-n", "auto", *(arguments or ["tests", *others])]]


def process(arguments: list[str]) -> list[Command]:
    """Real processes and sockets, real weights, and transformers as the reference."""
    pytest = [sys.executable, "-m", "pytest", "-q", "--durations=5"]
    many = [*pytest, "-n", "auto"]
    return [[*pytest, *arguments]] if arguments else [[*many, *WEIGHTY], [*many, "tests/processes"]]


def chart(arguments: list[str]) -> list[Command]:
    """The Helm chart rendered by a real helm, checked against schemas and Pod Security."""
    return [[sys.executable, "-m", "pytest", "-q", "tests/chart", *arguments]]


def e2e(arguments: list[str]) -> list[Command]:
    """A real cluster, real images, real pods: lanes side by side; with arguments one pytest that takes them."""
    if not arguments:
        return [[sys.executable, "-m", "e2e.lanes"]]
    return [[sys.executable, "-m", "pytest", "-v", "--durations=15", "e2e/cases", *arguments]]


def figures(_: list[str]) -> list[Command]:
    """Short forms of benchmarks; a limit that a slow machine misses is told, only a broken benchmark fails."""
    quick = ["--quick"]
    forms = {
        "decide": ["--looks", "100"],
        "placement": quick,
        "handoff": quick,
        "chaos": ["--trials", "3"],
        "soak": quick,
    }
    return [[sys.executable, "-m", f"tests.bench.{name}", *options] for name, options in forms.items()]


STAGES: dict[str, Callable[[list[str]], list[Command]]] = {
    "lint": lint,
    "unit": unit,
    "process": process,
    "chart": chart,
    "figures": figures,
    "e2e": e2e,
}


def run_stage(name: str, arguments: list[str]) -> int:
    """Runs the commands of one stage; returns the first exit code that is not 0."""
    for command in STAGES[name](arguments):
        shown = " ".join(command).replace(f"{BIN}/", "")
        print(f"\n--- {name}: {shown}", flush=True)
        code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode
        if code == MISSED:
            print(f"--- {name}: a limit was missed, see above: {shown}", flush=True)
        elif code:
            print(f"--- {name} failed (exit {code}): {shown}", flush=True)
            return code
    return 0


def bench(arguments: list[str]) -> int:
    """Runs tests/bench/NAME.py with the arguments that follow."""
    known = sorted(path.stem for path in (ROOT / "tests/bench").glob("*.py") if path.stem not in {"__init__", "report"})
    if not arguments or arguments[0] not in known:
        print(f"usage: ./tests/run bench NAME [args]; benchmarks: {', '.join(known)}", file=sys.stderr)
        return 2
    return subprocess.run([sys.executable, "-m", f"tests.bench.{arguments[0]}", *arguments[1:]], cwd=ROOT).returncode


def main(arguments: list[str]) -> int:
    """One stage by name, all of them without one."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("all", [])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that asks a model hub is wrong, here and elsewhere
    if name == "bench":
        return bench(rest)
    if name != "all" and name not in STAGES:
        print(f"unknown stage {name!r}; ./tests/run --help lists them", file=sys.stderr)
        return 2
    seconds: dict[str, float] = {}
    for stage in STAGES if name == "all" else [name]:
        started = time.monotonic()
        if code := run_stage(stage, rest):
            return code
        seconds[stage] = time.monotonic() - started
    print("\nall passed: " + ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
