"""Programs made from Go modules, once: Kubernetes, CoreDNS, helm, kwok, the pause program.

The result is cached by its content and the Go version. A killed build resumes where it was, from Go's own cache.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import locks
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import cache_folder
from e2e.cluster.processes import run
from e2e.cluster.progress import Progress, show_seconds
from e2e.images.cache import drop_unused
from e2e.images.oci import ARCHITECTURES

Report = Callable[[str], None]
SOURCES = Path(__file__).parent / "kubernetes"
KUBERNETES_VERSION = "1.37.1"
GO_VERSION = (1, 26)  # what Kubernetes 1.37 asks for
GO_RELEASE = "1.26.8"
ENVIRONMENT = {"CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}


@dataclass(frozen=True)
class Program:
    """`package` is a folder below `kubernetes/` ("." or "./pause") or "path@version"; `packages` is about its size."""

    name: str
    package: str
    packages: int
    disk_bytes: int
    flags: tuple[str, ...] = ("-ldflags=-s -w",)

    @property
    def is_ours(self) -> bool:
        return self.package.startswith(".")


def version_flags(version: str) -> str:
    """Linker flags that stamp the version; without it Helm's `kubeVersion` and kubectl's skew checks fail."""
    major, minor, _ = version.split(".")
    values = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "unknown",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(
        ["-s -w", *[f"-X {package}.{key}={value}" for package in packages for key, value in values.items()]]
    )


GIB = 1 << 30
KUBERNETES = Program("localkube", ".", 2881, 7 * GIB, (f"-ldflags={version_flags(KUBERNETES_VERSION)}",))
PAUSE = Program("pause", "./pause", 60, GIB // 4)
COREDNS = Program("coredns", "github.com/coredns/coredns@v1.15.0", 1100, 3 * GIB)
HELM = Program("helm", "helm.sh/helm/v4/cmd/helm@v4.2.4", 700, 2 * GIB)
KWOK = Program("kwok", "sigs.k8s.io/kwok/cmd/kwok@v0.8.0", 800, 2 * GIB)  # plays nodes that are not there


@functools.cache
def find_go() -> tuple[str, tuple[int, ...]] | None:
    """Path and version of Go, None without one."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        return None
    match = re.search(
        r"go(\d+)\.(\d+)(?:\.(\d+))?", run([go, "env", "GOVERSION"], environment={"GOTOOLCHAIN": "local"})
    )
    return (go, tuple(int(part) for part in match.groups(default="0"))) if match else None


def content_key(program: Program, sources: Path = SOURCES) -> str:
    """Changes when the program would."""
    key = hashlib.sha256(repr((program.package, program.flags)).encode())
    if program.is_ours:
        files = [sources / "go.mod", sources / "go.sum", *sorted((sources / program.package).glob("*.go"))]
        for file in files:
            key.update(file.read_bytes())
    return key.hexdigest()[:16]


def find_built(program: Program, cache: Path | None = None) -> Path | None:
    """The program if it is in the cache, made by the present Go version (by any when there is no Go)."""
    go = find_go()
    version = ".".join(map(str, go[1])) if go else "*"
    for found in _folder(cache).glob(f"{program.name}-{content_key(program)}-go{version}/{program.name}"):
        os.utime(found.parent)
        return found
    return None


def build(program: Program, report: Report, cache: Path | None = None) -> Path:
    """The program's path, built when it is not in the cache. Raises ClusterError."""
    found = find_built(program, cache)
    if found is not None:
        return found
    folder = _folder(cache)
    with locks.hold(folder / f"{program.name}.lock", report):
        found = find_built(program, cache)
        if found is None:
            found = _build(program, folder, report)
    drop_unused(folder)
    return found


def need_go() -> tuple[str, tuple[int, ...]]:
    """Path and version. Raises ClusterError when Go is missing or too old."""
    go = find_go()
    wanted = ".".join(map(str, GO_VERSION))
    if go is None:
        raise ClusterError(f"Kubernetes is built with Go {wanted} or newer, which is not on PATH: `{how_to_get_go()}`")
    if go[1] < GO_VERSION:
        has = ".".join(map(str, go[1]))
        raise ClusterError(f"{go[0]} is Go {has}, Kubernetes needs {wanted} or newer: `{how_to_get_go()}`")
    return go


def how_to_get_go() -> str:
    """The official archive, unpacked to where `find_go` looks."""
    system = ARCHITECTURES.get(platform.machine(), platform.machine())
    return f"curl -fsSL https://go.dev/dl/go{GO_RELEASE}.linux-{system}.tar.gz | tar -xz -C /usr/local"


def _build(program: Program, folder: Path, report: Report) -> Path:
    go, version = need_go()
    _check_disk(program, go)
    target = folder / f"{program.name}-{content_key(program)}-go{'.'.join(map(str, version))}"
    prefix = f".{program.name}."
    for left in folder.glob(f"{prefix}*"):  # by a build that was killed; the lock is ours
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as temporary:
        out = Path(temporary) / program.name
        common = ["-v", "-trimpath", *program.flags]
        if program.is_ours:
            report(f"building {program.name} (Kubernetes {KUBERNETES_VERSION}), once")
            command = [go, "build", "-mod=readonly", *common, "-o", str(out), program.package]
        else:
            report(f"building {program.package}, once")
            command = [go, "install", *common, program.package]
        elapsed_seconds = _run_build(command, program, {"GOBIN": temporary})
        out.chmod(0o755)
        Path(temporary).chmod(0o755)
        Path(temporary).rename(target)
        Path(temporary).mkdir()  # for the context manager to remove
    report(f"{program.name} built in {show_seconds(elapsed_seconds)}")
    return target / program.name


def _run_build(command: list[str], program: Program, extra: dict[str, str]) -> float:
    progress = Progress(program.name, program.packages)
    said: list[str] = []
    with subprocess.Popen(
        command,
        cwd=SOURCES,
        env={**os.environ, **ENVIRONMENT, **extra},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if re.fullmatch(r"[\w.~/-]+", line.strip()):
                progress.step()
            elif not line.startswith("go: downloading"):
                said.append(line.rstrip())
    progress.finish()
    if process.returncode:
        reason = "\n".join(said[-20:]) or "it said nothing"
        raise ClusterError(
            f"building {program.name} failed (exit {process.returncode}):\n{reason}\n"
            "Out of memory? Linking takes 3.3 GB. No network? Modules come from GOPROXY. A second run resumes."
        )
    return progress.elapsed_seconds


def _check_disk(program: Program, go: str) -> None:
    place = Path(run([go, "env", "GOCACHE"]).strip())
    place.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < program.disk_bytes:
        raise ClusterError(
            f"building {program.name} takes up to {program.disk_bytes / GIB:.1f} GiB in {place} and "
            f"{free_bytes / GIB:.1f} GiB are free; free some, or set GOCACHE to a larger disk"
        )


def _folder(cache: Path | None) -> Path:
    folder = (cache or cache_folder()) / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
