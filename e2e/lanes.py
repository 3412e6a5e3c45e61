"""All cases on one cluster: lanes side by side, as most of a case is waiting, then those that disturb others.

`python -m e2e.lanes [options of pytest]`; what a lane prints is shown with its name in front.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster import open_cluster
from e2e.cluster.current import NoCluster
from e2e.stack import Stack

CASES = Path(__file__).parent / "cases"
NODES = 3
SIDE_BY_SIDE = {
    "hardware": ("test_admission", "test_hardware", "test_placement"),
    "requests": ("test_serving", "test_never_lost", "test_keys"),
    "operator": ("test_operator", "test_models"),
}
"""Files by lane. All that make fake nodes are in one: each removes those of the one before."""
LAST = ("test_rights",)
"""Of those in no lane, what has to see all that was before."""


def alone() -> list[str]:
    """Files of no lane: they restart the operator or take nodes away, or nobody has thought about them yet."""
    taken = {name for names in SIDE_BY_SIDE.values() for name in names} | {*LAST}
    return [*sorted(path.stem for path in CASES.glob("test_*.py") if path.stem not in taken), *LAST]


class Lane:
    """A pytest of its own over some files."""

    def __init__(self, name: str, files: Sequence[str], options: Sequence[str]) -> None:
        self.name = name
        paths = [str(CASES / f"{file}.py") for file in files]
        command = [sys.executable, "-m", "pytest", "-v", "--durations=8", "--keep", "--installed", *paths, *options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._echo = threading.Thread(target=self._show)
        self._echo.start()

    def wait(self) -> int:
        """Its exit code; 5, nothing collected, is none: another lane may have what -k asks for."""
        code = self._process.wait()
        self._echo.join()
        return 0 if code == 5 else code

    def stop(self) -> None:
        """As Ctrl-C would."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def _show(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(f"[{self.name}] {line}", end="", flush=True)


def run(options: Sequence[str]) -> int:
    """First the lanes side by side, then the rest, even when a lane failed; the first exit code that is not 0."""
    codes: list[int] = []
    for group in (SIDE_BY_SIDE, {"alone": alone()}):
        lanes: list[Lane] = []
        try:
            lanes += [Lane(name, files, options) for name, files in group.items()]
            codes += [lane.wait() for lane in lanes]
        finally:
            for lane in lanes:
                lane.stop()
            for lane in lanes:
                lane.wait()
    return next((code for code in codes if code), 0)


def end(number: int, _: object) -> None:
    """SIGTERM ends as Ctrl-C does: lanes stopped, cluster down."""
    raise KeyboardInterrupt


def main(options: Sequence[str]) -> int:
    """Cluster up, Tandem installed, cases, cluster down."""
    signal.signal(signal.SIGTERM, end)
    started = time.monotonic()
    cluster = open_cluster("auto", nodes=NODES, yes=True)
    if isinstance(cluster, NoCluster):
        print(f"e2e needs a cluster: {'; '.join(cluster.reasons)}; ./e2e/cluster/run doctor says how to get one")
        return 1
    try:
        cluster.up()
        stack = Stack(cluster)
        stack.install(stack.load_images())
        code = run(options)
    except KeyboardInterrupt:
        print("stopped")
        code = 130
    finally:
        if cluster.kind != "current":
            cluster.down()
    print(f"e2e: {'passed' if code == 0 else f'failed ({code})'} in {time.monotonic() - started:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
