"""What every cluster can do, and what is the same for all of them: kubectl and helm with one kubeconfig."""

from __future__ import annotations

import os
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import build
from e2e.cluster.errors import ClusterError, Unsupported
from e2e.cluster.processes import run

__all__ = ["Cluster", "ClusterError", "Report", "Unsupported", "print_report"]

Report = Callable[[str], None]
_START = time.monotonic()


def print_report(text: str) -> None:
    """Progress on standard error, with the seconds since this program started."""
    print(f"{time.monotonic() - _START:6.1f} s  {text}", file=sys.stderr, flush=True)


class Cluster(ABC):
    """A Kubernetes cluster. Methods that cannot be done raise ClusterError or, when they never can, Unsupported."""

    kind: str
    audit_log: Path | None = None

    def __init__(self, name: str, report: Report = print_report) -> None:
        self.name, self.report = name, report

    @property
    @abstractmethod
    def kubeconfig(self) -> Path:
        """Credentials of an administrator."""

    @abstractmethod
    def up(self) -> None:
        """Bring it up, or repair it. Nothing happens when it is up."""

    @abstractmethod
    def down(self) -> None:
        """Remove it and everything it made, except for caches. Nothing happens when it is not there."""

    @abstractmethod
    def load_image(self, name: str, archive: Path) -> None:
        """Make the image `name` of an OCI archive usable on every node with imagePullPolicy IfNotPresent."""

    @abstractmethod
    def status(self) -> tuple[bool, str]:
        """Whether it is up and healthy, and a few lines for a person."""

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002
        """Run kubectl as administrator; return what it printed. Raises ClusterError with its errors."""
        return run([str(self.kubectl_program()), *arguments], stdin=input, check=check, environment=self.environment())

    def helm(self, *arguments: str, check: bool = True) -> str:
        """Run helm as administrator; return what it printed. Builds helm at the first call."""
        return run([str(self.helm_program()), *arguments], check=check, environment=self.environment())

    def nodes(self) -> list[str]:
        """Names of all nodes, ready or not."""
        names = self.kubectl("get", "nodes", "--output=jsonpath={.items[*].metadata.name}")
        return sorted(names.split())

    def kubectl_program(self) -> Path:
        """Found on PATH. Raises ClusterError."""
        found = shutil.which("kubectl")
        if found is None:
            raise ClusterError("kubectl is not on PATH; install it, or use --cluster local, which builds its own")
        return Path(found)

    def helm_program(self) -> Path:
        """Built from its Go module, so that every cluster is installed to by the same version; else from PATH."""
        built = build.find_built(build.HELM)
        if built is None and build.find_go() is None and (found := shutil.which("helm")):
            return Path(found)
        return built or build.build(build.HELM, self.report)

    def environment(self) -> dict[str, str]:
        """Environment variables for kubectl and helm."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    def power_off(self, node: str) -> None:
        """Cut the power of a node: all its processes end at once, its address answers no more."""
        raise self._unsupported("cut the power of a node")

    def power_on(self, node: str) -> None:
        """Start a node again, its disk as it was; returns when it is Ready."""
        raise self._unsupported("start a node")

    def kill_agents(self, node: str) -> None:
        """SIGKILL to kubelet and containerd of a node; its containers run on, unseen."""
        raise self._unsupported("kill a node's kubelet")

    def restart_agents(self, node: str) -> None:
        """Start killed agents again; returns when the node is Ready."""
        raise self._unsupported("restart a node's kubelet")

    def execute(self, arguments: list[str], program: Path) -> None:
        """Become `program`, for interactive use."""
        os.execve(program, [str(program), *arguments], {**os.environ, **self.environment()})

    def _unsupported(self, what: str) -> Unsupported:
        return Unsupported(f"a cluster of kind {self.kind} cannot {what}; use --cluster local")
