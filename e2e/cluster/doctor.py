"""What this machine lacks for a cluster and for our images, and the exact command that installs each thing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import build
from e2e.cluster.backend import Report
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import cache_folder
from e2e.cluster.node_config import PLUGINS

GIB = 1 << 30
KIND_COMMAND = "go install sigs.k8s.io/kind@v0.33.0"
FREE_BYTES = 4 * GIB  # images, once per node, and logs


@dataclass(frozen=True)
class Package:
    """A Debian package, the file or program by which it is known, and what needs it."""

    name: str
    proof: str
    purpose: str


@dataclass(frozen=True)
class Finding:
    """One line of the report. `remedy` is a command, or what to do; empty when nothing is missing."""

    what: str
    purpose: str
    fine: bool
    found: str
    remedy: str = ""
    optional: bool = False


PACKAGES = (
    Package("containerd", "containerd", "runs containers"),
    Package("runc", "runc", "starts a container"),
    Package("containernetworking-plugins", f"{PLUGINS}/bridge", "pod network"),
    Package("iproute2", "ip", "networks of nodes"),
    Package("iptables", "iptables", "Services"),
    Package("procps", "sysctl", "kernel settings of nodes"),
    Package("util-linux", "nsenter", "namespaces of nodes"),
    Package("busybox-static", "busybox", "shell in images"),
    Package("gcc", "gcc", "stubs in the runtime image"),
    Package("binutils", "readelf", "libraries of the runtime image"),
)


def find_missing(packages: Iterable[Package] = PACKAGES) -> list[Package]:
    """Those whose proof is not on this machine."""
    return [package for package in packages if not _is_there(package.proof)]


def install_command(packages: Iterable[Package]) -> str:
    names = " ".join(package.name for package in packages)
    return f"apt-get update && apt-get install --yes --no-install-recommends {names}"


def install_missing(yes: bool, report: Report) -> None:
    """Install Debian packages when that is allowed (`--yes` or CI=true). Raises ClusterError with the command."""
    missing = find_missing()
    if not missing:
        return
    command = install_command(missing)
    names = ", ".join(package.name for package in missing)
    if not (yes or os.environ.get("CI") == "true"):
        raise ClusterError(f"missing: {names}. Install with `{command}`, or give --yes to let `up` do it")
    if shutil.which("apt-get") is None:
        raise ClusterError(f"missing: {names}, and this is no Debian; install what provides them, then try again")
    report(f"installing {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode or find_missing():
        raise ClusterError(
            f"`{command}` failed (exit {done.returncode}): {(done.stderr or done.stdout).strip()[-2000:]}"
        )


def need_root() -> None:
    """Raises ClusterError."""
    if os.geteuid() != 0:
        raise ClusterError(
            "a local cluster makes namespaces, mounts and routes and needs root: use sudo, or Docker and --cluster kind"
        )


def need_disk(folder: Path) -> None:
    """Raises ClusterError when images cannot be kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    finding = check_disk(folder)
    if not finding.fine:
        raise ClusterError(f"{finding.what}: {finding.found}; {finding.remedy}")


def check_disk(folder: Path) -> Finding:
    """Free space and kind of file system: containerd's overlayfs cannot lie on another overlay."""
    place = folder
    while not place.exists():
        place = place.parent
    free_bytes, kind = shutil.disk_usage(place).free, file_system(place, Path("/proc/self/mounts").read_text())
    found = f"{free_bytes / GIB:.0f} GiB free, {kind}"
    remedy = "" if free_bytes >= FREE_BYTES else f"free {FREE_BYTES / GIB:.0f} GiB"
    if kind == "overlay":
        remedy = "set XDG_CACHE_HOME to a folder on a real disk (ext4, xfs)"
    return Finding(f"disk of {folder}", "images of nodes", not remedy, found, remedy)


def file_system(path: Path, mounts: str) -> str:
    """Kind of the file system that holds `path`, by the text of /proc/self/mounts."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        place, this = line.split()[1:3]
        if path.is_relative_to(place) and len(place) >= len(best):
            best, kind = place, this
    return kind


def examine() -> list[Finding]:
    """Everything that a cluster of any kind and the images need."""
    root = os.geteuid() == 0
    findings = [Finding("root", "cluster local", root, "yes" if root else "no", "" if root else "sudo")]
    findings.append(_examine_go())
    for package in PACKAGES:
        fine = _is_there(package.proof)
        remedy = "" if fine else f"apt-get install --yes {package.name}"
        findings.append(Finding(package.name, package.purpose, fine, "yes" if fine else "no", remedy))
    findings.append(check_disk(cache_folder()))
    built = (build.KUBERNETES, build.COREDNS, build.PAUSE, build.HELM, build.KWOK)
    findings += map(_examine_built, built)
    return [*findings, *_examine_kind()]


def answers(*command: str, run: Callable[..., subprocess.CompletedProcess[bytes]] = subprocess.run) -> bool:
    """Whether a command can be run and exits with 0."""
    try:
        return run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _is_there(proof: str) -> bool:
    """A path, or a program on PATH or where Debian keeps those of root."""
    if proof.startswith("/"):
        return Path(proof).exists()
    return bool(shutil.which(proof) or shutil.which(proof, path="/usr/local/sbin:/usr/sbin:/sbin"))


def _examine_go() -> Finding:
    go, wanted = build.find_go(), ".".join(map(str, build.GO_VERSION))
    fine = go is not None and go[1] >= build.GO_VERSION
    found = f"{go[0]} {'.'.join(map(str, go[1]))}" if go else "no"
    return Finding(f"Go {wanted}", "cluster local, helm", fine, found, "" if fine else build.how_to_get_go())


def _examine_built(program: build.Program) -> Finding:
    built = build.find_built(program)
    return Finding(program.name, "built once, when needed", True, str(built.parent.name) if built else "not built yet")


def _examine_kind() -> list[Finding]:
    found = []
    for what, command, remedy in (
        ("Docker", ("docker", "info"), "see docs.docker.com/engine/install"),
        ("kind", ("kind", "version"), KIND_COMMAND),
    ):
        fine = answers(*command)
        found.append(
            Finding(what, "cluster kind", fine, "yes" if fine else "no", "" if fine else remedy, optional=True)
        )
    return found
