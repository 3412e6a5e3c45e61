"""Fake nodes beside the real ones: kwok plays their kubelets, so that hundreds of GPU nodes cost a few seconds.

Real API server, scheduler and controllers place real pods on them; only the pods' processes are missing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from e2e.cluster import build
from e2e.cluster.api import wait_until
from e2e.cluster.backend import Cluster
from e2e.cluster.errors import ClusterError
from e2e.cluster.processes import clean_environment, tail

STAGES = Path(__file__).parent / "manifests" / "kwok.yaml"
MARK = "kwok.x-k8s.io/node"
"""Label and taint of every fake node; kwok manages those that have the label, and no others."""
TOLERATION = {"key": MARK, "operator": "Exists"}
ADDRESSES = "198.18.0.0/16"  # of fake pods: reserved for tests (RFC 2544), routed nowhere
NODE_ADDRESS = "127.0.0.1"  # nothing listens: who asks such a node for logs hears so at once
LEASE_SECONDS = 40  # as a kubelet's; it is renewed four times in this time
READY_SECONDS = 120.0
MACHINE = {"cpu": "192", "memory": "2Ti", "pods": "110", "ephemeral-storage": "4Ti"}


@dataclass(frozen=True)
class FakeNode:
    """A node that is to be there. `resources` are added to those of a large machine, or replace them by name."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, str | int] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()

    def manifest(self) -> dict[str, Any]:
        """The Node object, with the capacity that a kubelet would report."""
        amounts = {name: str(amount) for name, amount in {**MACHINE, **self.resources}.items()}
        own = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        taint = {"key": MARK, "value": "fake", "effect": "NoSchedule"}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {**own, **self.labels, MARK: "fake"}},
            "spec": {"taints": [taint, *map(dict, self.taints)]},
            "status": {"capacity": amounts, "allocatable": amounts},
        }


def command(program: Path, kubeconfig: Path, folder: Path) -> list[str]:
    """The process ends with whoever started it, however that ends: nobody else knows of it."""
    with_parent = [found, "--pdeathsig", "KILL"] if (found := shutil.which("setpriv")) else []
    home = ["env", f"HOME={folder}"]  # it keeps a folder there
    flags = {
        "kubeconfig": kubeconfig,
        "config": STAGES,
        "manage-all-nodes": "false",
        "manage-nodes-with-label-selector": f"{MARK}=fake",
        "node-lease-duration-seconds": LEASE_SECONDS,
        "cidr": ADDRESSES,
        "node-ip": NODE_ADDRESS,
        "node-port": 0,  # serves nothing: there are no logs and no shell
        "v": "WARN",
    }
    return [*with_parent, *home, str(program), *(f"--{name}={value}" for name, value in flags.items())]


def count_ready(listing: str) -> int:
    """Of lines with the status of the condition Ready each."""
    return sum(line.strip() == "True" for line in listing.splitlines())


class FakeNodes:
    """As a context: nodes can be added inside of it, and all of them are gone after it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._folder = Path(tempfile.mkdtemp(prefix="kwok-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> FakeNodes:
        self._remove_all()  # what a killed run left
        argv = command(build.build(build.KWOK, self._cluster.report), self._cluster.kubeconfig, self._folder)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment()
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._remove_all()
        finally:
            if self._process:
                self._process.kill()
                self._process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self._folder / "kwok.log"

    def add(self, nodes: Iterable[FakeNode]) -> float:
        """Create them and wait until every fake node is Ready; seconds that it took. Raises ClusterError."""
        started = time.monotonic()
        wanted = [node.manifest() for node in nodes]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": wanted})
        # not apply: its annotation would double every object
        self._cluster.kubectl("create", "--filename", "-", input=text)
        have = len(self._cluster.kubectl("get", "nodes", "-l", MARK, "-o", "name").split())
        wait_until(lambda: self._ready() >= have, f"not all {have} fake nodes are Ready", READY_SECONDS, self._explain)
        return time.monotonic() - started

    def remove(self, *names: str) -> None:
        """Delete nodes, as an autoscaler would; pods that still name them are collected by Kubernetes."""
        self._cluster.kubectl("delete", "node", *names, "--wait=false")

    def _ready(self) -> int:
        if self._process and self._process.poll() is not None:
            raise ClusterError(f"kwok ended (exit {self._process.returncode}):\n{tail(self._log)}")
        status = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
        return count_ready(self._cluster.kubectl("get", "nodes", "-l", MARK, "-o", f"jsonpath={status}"))

    def _explain(self) -> str:
        return tail(self._log)

    def _remove_all(self) -> None:
        self._cluster.kubectl("delete", "nodes", "-l", MARK, "--ignore-not-found", "--wait=false")
