"""A cluster that exists already, and no cluster at all."""

from __future__ import annotations

from pathlib import Path

from e2e.cluster.backend import Cluster, Report, print_report
from e2e.cluster.errors import ClusterError, Unsupported


class CurrentCluster(Cluster):
    """The cluster of a kubeconfig that the user named. It is used, never made nor removed."""

    kind = "current"

    def __init__(self, kubeconfig: Path, report: Report = print_report) -> None:
        super().__init__("current", report)
        self._kubeconfig = kubeconfig

    @property
    def kubeconfig(self) -> Path:
        return self._kubeconfig

    def up(self) -> None:
        if not self._kubeconfig.is_file():
            raise ClusterError(f"there is no kubeconfig {self._kubeconfig}; give --kubeconfig or $KUBECONFIG")
        self.kubectl("version", "--output=json")
        self.report(f"using the cluster of {self._kubeconfig}: {len(self.nodes())} nodes")

    def down(self) -> None:
        self.report(f"the cluster of {self._kubeconfig} was not made here and stays as it is")

    def load_image(self, name: str, archive: Path) -> None:
        raise Unsupported(
            f"images cannot be loaded into a cluster that was not made here: push {archive} to a registry that its "
            f"nodes can reach, and install the chart with that image in place of {name}"
        )

    def status(self) -> tuple[bool, str]:
        healthy = "ok" in self.kubectl("get", "--raw=/readyz", check=False)
        return healthy, f"kubeconfig {self._kubeconfig}: {'answers' if healthy else 'does not answer'}"


class NoCluster(Cluster):
    """What is left where no Kubernetes can run: Tandem's runtime as local processes. `up` says what is missing."""

    kind = "processes"

    def __init__(self, reasons: list[str], report: Report = print_report) -> None:
        super().__init__("processes", report)
        self.reasons = reasons

    @property
    def kubeconfig(self) -> Path:
        raise self._unsupported("have a kubeconfig")

    def up(self) -> None:
        self.report("no Kubernetes here: " + "; ".join(self.reasons))
        self.report("left out: operator, chart, pods. What runs without: `tandem-runtime serve --model DIR`")
        self.report("to get a cluster: `e2e/cluster/run doctor` lists what is missing and how to install it")

    def down(self) -> None:
        self.report("there is no cluster; nothing to do")

    def load_image(self, name: str, archive: Path) -> None:
        raise self._unsupported(f"load {name}")

    def status(self) -> tuple[bool, str]:
        return False, "no cluster: " + "; ".join(self.reasons)

    def kubectl_program(self) -> Path:
        raise self._unsupported("run kubectl")

    def helm_program(self) -> Path:
        raise self._unsupported("run helm")
