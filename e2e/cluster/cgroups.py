"""Control groups of the nodes, on v1, hybrid and v2 machines (v2 is unverified: no such machine was at hand).

Each node has its own root below /NAME in every hierarchy: two kubelets on one root delete each other's pods.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import ClusterError

MOUNTS = Path("/proc/self/mountinfo")
CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")
REMOVE_SECONDS = 10.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted tree of control groups. `unified` is v2, which on hybrid machines has no controllers."""

    mount: Path
    unified: bool
    controllers: frozenset[str]


def parse_mounts(text: str) -> list[Hierarchy]:
    """The hierarchies in the text of /proc/self/mountinfo; controllers of v2 are found in the tree itself."""
    found: dict[Path, Hierarchy] = {}
    for line in text.splitlines():
        fields, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            mount = Path(fields.split()[4])
            names = frozenset(options.split(",")) - {"rw"} if kind == "cgroup" else frozenset[str]()
            found[mount] = Hierarchy(mount, kind == "cgroup2", names)
    return list(found.values())


def create(path: str, mounts: Path = MOUNTS) -> None:
    """Make `path` ("tandem/n0") in every hierarchy, usable by a kubelet. Raises ClusterError."""
    hierarchies = parse_mounts(mounts.read_text())
    if not hierarchies:
        raise ClusterError("no control groups are mounted below /sys/fs/cgroup; the kubelet needs them")
    for hierarchy in hierarchies:
        folder = hierarchy.mount
        for part in Path(path).parts:
            if hierarchy.unified:
                _delegate(folder)
            parent, folder = folder, folder / part
            try:
                folder.mkdir(exist_ok=True)
                if "cpuset" in hierarchy.controllers:
                    _copy_cpuset(parent, folder)
            except OSError as error:
                raise ClusterError(
                    f"cannot make the control group {folder} ({error.strerror}); in a container, start it privileged"
                ) from error


def remove(path: str, mounts: Path = MOUNTS) -> None:
    """Remove `path` and everything below it from every hierarchy, killing what is left on v2. Raises ClusterError."""
    deadline = time.monotonic() + REMOVE_SECONDS
    for hierarchy in parse_mounts(mounts.read_text()):
        top = hierarchy.mount / path
        if hierarchy.unified and (top / "cgroup.kill").exists():
            with suppress(OSError):
                (top / "cgroup.kill").write_text("1")
        while top.is_dir():
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)
            if top.is_dir():
                if time.monotonic() > deadline:
                    raise ClusterError(f"the control group {top} is still in use: see {top}/**/cgroup.procs")
                time.sleep(0.02)


def _delegate(folder: Path) -> None:
    """Let the children of a v2 group use every controller that the group has."""
    control = folder / "cgroup.subtree_control"
    missing = set((folder / "cgroup.controllers").read_text().split()) - set(control.read_text().split())
    for controller in sorted(missing):
        with suppress(OSError):  # the kubelet says which one it cannot do without
            control.write_text(f"+{controller}")


def _copy_cpuset(parent: Path, folder: Path) -> None:
    """A new v1 cpuset is empty and takes no process until it is filled."""
    for name in CPUSET_FILES:
        if (folder / name).exists() and not (folder / name).read_text().strip():
            (folder / name).write_text((parent / name).read_text())
