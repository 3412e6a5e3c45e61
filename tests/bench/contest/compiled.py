"""The simulator compiled: the same sources through mypyc into the user's cache, a quarter of the CPU per request.

Outcomes are the same byte for byte (`--interpreted` runs without). No compiler, no gain: then nothing is compiled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.bench.contest.native import plain_classes

ROOT: Final = Path(__file__).parents[3]
HOMES: Final = {"tandem_operator": ROOT / "operator", "tandem_runtime": ROOT / "runtime"}
MODULES: Final = (
    "tandem_runtime/contracts/coefficients.py",
    *(f"tandem_runtime/policy/{name}.py" for name in (
        "bands", "choice", "dispatch", "drain_rate", "fleet", "line", "parked", "pods", "queue", "slack", "waiting",
    )),
    *(f"tandem_operator/simulation/{name}.py" for name in (
        "arrivals", "counters", "decode", "events", "fleet", "flight", "fluid", "ledger", "link", "measure", "pod",
        "oracles/fluid", "prefill", "prefix_cache", "recovery", "router", "run", "scraper", "sequences", "series",
        "servegen", "supply", "traced", "watch", "workload",
    )),
    "tandem_operator/performance/fit.py",
    *(f"tandem_operator/scaling/{name}.py" for name in ("queueing", "sanitise", "sizing")),
)  # fmt: skip
"""Where the time goes."""
PLAIN: Final = {
    "tandem_runtime/contracts/coefficients.py": ("Prefill", "Decode", "Link", "Coefficients"),
    "tandem_runtime/policy/bands.py": ("Tenant",),
    "tandem_runtime/policy/choice.py": ("Pair", "Hold"),
    "tandem_runtime/policy/dispatch.py": ("Dispatch",),
    "tandem_runtime/policy/drain_rate.py": ("DrainRate",),
    "tandem_runtime/policy/fleet.py": ("ChoiceLaw", "Standing"),
    "tandem_runtime/policy/line.py": ("Foremost", "InTime"),
    "tandem_runtime/policy/pods.py": ("PodSnapshot",),
    "tandem_runtime/policy/queue.py": ("Blocked", "Place", "WaitingQueue"),
    "tandem_runtime/policy/waiting.py": ("Waiting", "QueueLimits", "QueueLaw"),
    "tandem_operator/simulation/fluid.py": ("Work",),
    "tandem_operator/simulation/workload.py": ("Request",),
}
"""Structs and dataclasses that are made or read for every request: plain classes in what is compiled."""
TYPES: Final = ("tandem_operator/scaling/observation.py", "tandem_operator/scaling/settings.py")
"""Of what the compiled modules handle: another type, another compilation."""
SETUP: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
flags = ["--ignore-missing-imports", "--follow-imports=silent"]
setup(name="compiled", packages=[], ext_modules=mypycify([*sys.argv.pop().split(","), *flags], opt_level="2"))
"""


def compiled_tree(folder: Path, say: Callable[[str], None]) -> Path | None:
    """A folder that goes first on the path of whoever simulates; made when the sources changed. None: not possible."""
    tree = folder / f"{_key()}-{sysconfig.get_config_var('SOABI')}"
    if tree.is_dir():
        return tree
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None or importlib.util.find_spec("mypyc") is None:
        say(f"the simulator runs interpreted: {compiler} or mypyc is missing")
        return None
    say("compiling the simulator: a minute, once per change of it")
    part = folder / f"part-{os.getpid()}"
    for module in MODULES:
        (part / module).parent.mkdir(parents=True, exist_ok=True)
        (part / module).write_text(_text(module), encoding="utf-8")
    for module in MODULES:
        _link_siblings(part, Path(module).parent)
    command = (sys.executable, "-c", SETUP, "build_ext", "--inplace", ",".join(MODULES))
    done = subprocess.run(command, cwd=part, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(part, ignore_errors=True)
        say(f"the simulator runs interpreted: mypyc failed: {(done.stderr or done.stdout).strip()[-400:]}")
        return None
    shutil.rmtree(part / "build", ignore_errors=True)
    part.replace(tree)
    return tree


def _text(module: str) -> str:
    """What is compiled."""
    source = _source(module).read_text(encoding="utf-8")
    return plain_classes(source, frozenset(PLAIN[module])) if module in PLAIN else source


def _link_siblings(tree: Path, folder: Path) -> None:
    """Whatever else is in a folder, and in those above it, stays where it is and as it will be."""
    while folder.name:
        for there in _source(str(folder)).iterdir():
            here = tree / folder / there.name
            if not here.exists() and there.name != "__pycache__":
                here.symlink_to(there)
        folder = folder.parent


def _source(module: str) -> Path:
    return HOMES[module.partition("/")[0]] / module


def _key() -> str:
    """One tree per checkout: what is not compiled is linked, and a tree of another would run the law that is there."""
    digest = hashlib.sha256(f"{HOMES}\n".encode())
    for module in MODULES:
        digest.update(f"{module}\n{_text(module)}".encode())
    for module in TYPES:
        digest.update(f"{module}\n".encode() + _source(module).read_bytes())
    for folder in sorted({_source(module).parent for module in MODULES}):
        names = sorted(there.name for there in folder.iterdir() if there.name != "__pycache__")
        digest.update("\n".join(names).encode())
    return digest.hexdigest()[:12]
