"""Processes that outlive this one, known by (pid, start time): a pid alone may be another program's tomorrow."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from e2e.cluster.errors import ClusterError

POLL_SECONDS = 0.02


class Identity(NamedTuple):
    """A process; `start_ticks` is field 22 of /proc/PID/stat, clock ticks since the machine started."""

    pid: int
    start_ticks: int


def parse_stat(text: str) -> tuple[str, int]:
    """State letter and start ticks of a /proc/PID/stat line, whatever the program's name contains."""
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def identify(pid: int) -> Identity | None:
    """None when there is no such process, or when only its exit code is left."""
    try:
        state, start_ticks = parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (OSError, IndexError, ValueError):
        return None
    return None if state in "ZX" else Identity(pid, start_ticks)


def started_at(process: Identity) -> float:
    """When it started, in Unix seconds."""
    up_seconds = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up_seconds + process.start_ticks / os.sysconf("SC_CLK_TCK")


def is_alive(process: Identity) -> bool:
    _reap(process.pid)
    return identify(process.pid) == process


def spawn(argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Identity:
    """Start a program in a session of its own, output appended to `log`, without waiting. Raises ClusterError.

    `environment`: beside what every daemon sees.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # not subprocess.Popen: it complains when it is forgotten while its child runs, which is the purpose here
    try:
        seen = clean_environment() | dict(environment or {})
        pid = os.posix_spawnp(argv[0], list(argv), seen, file_actions=actions, setsid=True)
    except FileNotFoundError as error:
        raise ClusterError(f"the program {argv[0]} is missing; `e2e/cluster/run doctor` says how to get it") from error
    process = identify(pid)
    if process is None:
        raise ClusterError(f"{argv[0]} ended at once:\n{tail(log)}")
    return process


def clean_environment() -> dict[str, str]:
    """What a daemon may see of our environment: no proxy settings, no credentials."""
    paths = [*os.environ.get("PATH", "").split(":"), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
    return {"PATH": ":".join(dict.fromkeys(path for path in paths if path)), "HOME": "/root", "LANG": "C.UTF-8"}


def find_child(parent: Identity, timeout_seconds: float = 10) -> Identity:
    """The first child of a wrapper such as `nsenter --pid`, which forks and waits. Raises ClusterError."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline and is_alive(parent):
        with suppress(OSError):
            for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split():
                child = identify(int(pid))
                if child is not None:
                    return child
        time.sleep(POLL_SECONDS)
    raise ClusterError(f"process {parent.pid} started no child within {timeout_seconds:g} s")


def kill(processes: Iterable[Identity]) -> None:
    """SIGKILL to those that are still the same processes."""
    for process in processes:
        if is_alive(process):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def wait_gone(processes: Iterable[Identity], timeout_seconds: float = 20) -> None:
    """Raises ClusterError with the pids that are still there."""
    deadline = time.monotonic() + timeout_seconds
    left = list(processes)
    while left := [process for process in left if is_alive(process)]:
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in left)
            raise ClusterError(f"processes {pids} did not end within {timeout_seconds:g} s of SIGKILL; see `ps -fp`")
        time.sleep(POLL_SECONDS)


def find_in_network(namespace: Path) -> list[Identity]:
    """Every process whose network namespace is the one that is mounted at `namespace`."""
    try:
        wanted = namespace.stat()
    except OSError:
        return []
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                status = (folder / "ns" / "net").stat()
                process = identify(int(folder.name))
                if process and (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append(process)
    return found


def run(
    argv: Sequence[str], *, stdin: str | None = None, check: bool = True, environment: Mapping[str, str] | None = None
) -> str:
    """Run a command to its end; return what it printed. Raises ClusterError with its errors unless `check` is off."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin if stdin is not None else None,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment} if environment else None,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"the program {argv[0]} is missing; `e2e/cluster/run doctor` says how to get it") from error
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()) or "it said nothing"
        raise ClusterError(f"`{' '.join(argv)}` failed (exit {done.returncode}): {said}")
    return done.stdout


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) or f"({log} is empty)"
    except OSError:
        return f"(no log at {log})"


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
