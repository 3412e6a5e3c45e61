"""Which kind of cluster: named, or the best that this machine can have."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from e2e.cluster import build, kind
from e2e.cluster.backend import Cluster, Report, print_report
from e2e.cluster.current import CurrentCluster, NoCluster
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import DEFAULT_NAME, DEFAULT_SUBNETS, Layout
from e2e.cluster.local import LocalCluster

KINDS = ("auto", "kind", "local", "current")
SUBNETS_VARIABLE = "TANDEM_CLUSTER_SUBNETS"


def open_cluster(
    kind_name: str = "auto",
    *,
    nodes: int = 1,
    yes: bool = False,
    kubeconfig: Path | None = None,
    name: str = DEFAULT_NAME,
    report: Report = print_report,
    environment: Mapping[str, str] = os.environ,
) -> Cluster:
    """The cluster to use; nothing is started. Raises ClusterError.

    "auto" takes `kubeconfig` when it is given (never $KUBECONFIG: that may be somebody's production), else a local
    cluster that exists, else kind when Docker and kind answer, else local with root and Go, else no cluster at all.
    """
    if kind_name not in KINDS:
        raise ClusterError(f"--cluster {kind_name}: it must be one of {', '.join(KINDS)}")
    if kind_name == "current" and kubeconfig is None and environment.get("KUBECONFIG"):
        kubeconfig = Path(environment["KUBECONFIG"])
    if kind_name == "current" and kubeconfig is None:
        raise ClusterError("--cluster current needs --kubeconfig FILE or $KUBECONFIG: no cluster is taken by accident")
    layout = Layout.find(name, environment.get(SUBNETS_VARIABLE) or DEFAULT_SUBNETS)
    reasons: list[str] = []
    if kind_name == "auto":
        kind_name, reasons = choose(kubeconfig, layout.run.is_dir(), kind.is_possible, os.geteuid() == 0, _can_build)
    if kind_name == "kind":
        return kind.KindCluster(name, nodes, report)
    if kind_name == "local":
        return LocalCluster(layout, nodes, yes, report)
    if kind_name == "current":
        assert kubeconfig is not None
        return CurrentCluster(kubeconfig, report)
    return NoCluster(reasons, report)


def choose(
    kubeconfig: Path | None,
    local_exists: bool,
    kind_possible: Callable[[], bool],
    root: bool,
    can_build: Callable[[], bool],
) -> tuple[str, list[str]]:
    """The kind of "auto", and why every better one was left out."""
    if kubeconfig is not None:
        return "current", []
    if local_exists:
        return "local", []
    if kind_possible():
        return "kind", []
    reasons = ["Docker with kind does not answer"]
    if root and can_build():
        return "local", reasons
    reasons += [] if root else ["this is not root"]
    reasons += [] if can_build() else [f"Go {'.'.join(map(str, build.GO_VERSION))} or newer is not on PATH"]
    return "processes", reasons


def _can_build() -> bool:
    go = build.find_go()
    if go is not None and go[1] >= build.GO_VERSION:
        return True
    return all(build.find_built(program) for program in (build.KUBERNETES, build.COREDNS, build.PAUSE))
