"""Cluster DNS of a local cluster: CoreDNS in pods, as everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.api import Api, wait_until

MANIFEST = Path(__file__).parent / "manifests" / "coredns.yaml"
DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
READY_SECONDS = 180.0


def render(address: IPv4Address, nodes: int) -> str:
    """The manifest; two pods as soon as there are two nodes, so that names resolve when one is lost."""
    return MANIFEST.read_text().replace("ADDRESS", str(address)).replace("REPLICAS", str(min(nodes, 2)))


def object_path(value: Mapping[str, Any]) -> str:
    """Where the API server keeps one of the manifest's objects."""
    group, kind, metadata = value["apiVersion"], value["kind"].lower() + "s", value["metadata"]
    space = f"namespaces/{metadata['namespace']}/" if "namespace" in metadata else ""
    return f"/{'apis' if '/' in group else 'api'}/{group}/{space}{kind}/{metadata['name']}"


def apply(api: Api, address: IPv4Address, nodes: int) -> None:
    """Raises ClusterError."""
    wait_until(
        lambda: api.get("/api/v1/namespaces/kube-system") is not None, "the namespace kube-system is missing", 60.0
    )
    for value in yaml.safe_load_all(render(address, nodes)):
        api.apply(object_path(value), value)


def wait_ready(api: Api) -> None:
    """Until every CoreDNS pod of the present manifest is ready."""

    def holds() -> bool:
        deployment = api.get_json(DEPLOYMENT) or {}
        status, wanted = deployment.get("status", {}), deployment.get("spec", {}).get("replicas")
        seen = status.get("observedGeneration", 0) >= deployment.get("metadata", {}).get("generation", 1)
        return seen and wanted is not None and status.get("availableReplicas", 0) >= wanted

    wait_until(
        holds, "CoreDNS is not ready", READY_SECONDS, lambda: "`e2e/cluster/run kubectl -n kube-system get pods`"
    )
