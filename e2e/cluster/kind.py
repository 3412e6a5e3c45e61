"""A cluster of kind, in Docker. Not run where this was written (no Docker there): kept as small as it can be."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from e2e.cluster import doctor, locks
from e2e.cluster.backend import Cluster, Report, print_report
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import cache_folder
from e2e.cluster.processes import run
from e2e.images.oci import copy_thin, read_index

NODE_IMAGE = (
    "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"  # of kind v0.33.0
)
READY = "180s"


def render_config(nodes: int) -> str:
    """kind's configuration (JSON is YAML): with one node it is the control plane, else `nodes` workers beside it."""
    workers = [{"role": "worker"}] * nodes if nodes > 1 else []
    cluster = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4"}
    return json.dumps({**cluster, "nodes": [{"role": "control-plane"}, *workers]})


class KindCluster(Cluster):
    """A cluster that kind keeps under `name`."""

    kind = "kind"

    def __init__(self, name: str, nodes: int = 1, report: Report = print_report) -> None:
        super().__init__(name, report)
        self._wanted = nodes
        self._folder = cache_folder() / "cluster"

    @property
    def kubeconfig(self) -> Path:
        return self._folder / f"kind-{self.name}.kubeconfig"

    def up(self) -> None:
        if not is_possible():
            raise ClusterError(f"Docker or kind does not answer; `docker info` must work, and `{doctor.KIND_COMMAND}`")
        with locks.hold(self._folder / f"kind-{self.name}.lock", self.report):
            if self._exists() and self.status()[0] and len(self.nodes()) == self._machines():
                self.report(f"cluster {self.name} is up; nothing to do")
                return
            if self._exists():
                self.report(f"cluster {self.name} is not whole or has other nodes; making it again")
                self._delete()
            self.report(f"kind makes cluster {self.name} with {self._machines()} nodes")
            command = ["kind", "create", "cluster", "--name", self.name, "--image", NODE_IMAGE, "--wait", READY]
            run([*command, "--kubeconfig", str(self.kubeconfig), "--config", "-"], stdin=render_config(self._wanted))
        self.report(f"cluster {self.name} is up")

    def down(self) -> None:
        with locks.hold(self._folder / f"kind-{self.name}.lock", self.report):
            self._delete()
        self.report(f"cluster {self.name} is down")

    def load_image(self, name: str, archive: Path) -> None:
        found, digest = read_index(archive)
        if found != name:
            raise ClusterError(f"{archive} holds the image {found}, not {name}")
        have = run(["docker", "exec", f"{self.name}-control-plane", "ctr", "--namespace=k8s.io", "images", "ls"])
        if not any(row.split()[:1] == [name] and digest in row for row in have.splitlines()):
            with tempfile.NamedTemporaryFile(suffix=".tar") as file:
                copy_thin(archive, file)
                file.flush()
                run(["kind", "load", "image-archive", file.name, "--name", self.name])
            self.report(f"image {name} loaded")

    def status(self) -> tuple[bool, str]:
        if not self._exists():
            return False, f"cluster {self.name} is down"
        healthy = "ok" in self.kubectl("get", "--raw=/readyz", check=False)
        return (
            healthy,
            f"cluster {self.name} of kind, kubeconfig {self.kubeconfig}\n{self.kubectl('get', 'nodes', check=False)}",
        )

    def _machines(self) -> int:
        return 1 if self._wanted == 1 else self._wanted + 1

    def _exists(self) -> bool:
        return self.name in run(["kind", "get", "clusters"], check=False).split()

    def _delete(self) -> None:
        if self._exists():
            run(["kind", "delete", "cluster", "--name", self.name, "--kubeconfig", str(self.kubeconfig)])
        self.kubeconfig.unlink(missing_ok=True)


def is_possible() -> bool:
    """Whether Docker and kind answer."""
    return doctor.answers("docker", "info") and doctor.answers("kind", "version")
