"""Nodes that go away: without power, or with their agents dead. Pods come back elsewhere."""

from __future__ import annotations

import pytest

from e2e.cases.load import Load
from e2e.cases.manifests import emulated
from e2e.stack import Stack, wait_until


def place(stack: Stack, namespace: str) -> tuple[str, str]:
    """A fleet whose decode pod stands on a node other than the first (which holds the cluster's DNS); (pod, node)."""
    avoid = stack.cluster.nodes()[0]
    affinity = f"""
      affinity:
       nodeAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
         nodeSelectorTerms:
         - matchExpressions: [{{key: kubernetes.io/hostname, operator: NotIn, values: [{avoid}]}}]"""
    manifest = emulated("fleet")
    head, tail = manifest.split("  decode:", 1)
    stack.apply(head + "  decode:" + tail.replace("     spec:", f"     spec:{affinity}", 1), namespace)
    stack.wait_ready("fleet", namespace)
    pod = stack.pods(namespace, "fleet", "decode")[0]
    return pod["metadata"]["name"], pod["spec"]["nodeName"]


@pytest.mark.parametrize("loss", ["power", "agents"])
def test_pods_of_a_lost_node_come_back_elsewhere(stack: Stack, namespace: str, loss: str) -> None:
    cluster = stack.cluster
    if cluster.kind != "local":
        pytest.skip(f"a {cluster.kind} cluster has no node whose power can be cut from here")
    pod, node = place(stack, namespace)
    try:
        if loss == "power":
            cluster.power_off(node)
        else:
            cluster.kill_agents(node)

        def elsewhere() -> bool:
            pods = stack.pods(namespace, "fleet", "decode")
            return bool(pods) and all(
                other["metadata"]["name"] != pod
                and other["spec"].get("nodeName") not in (None, node)
                and any(c["type"] == "Ready" and c["status"] == "True" for c in other["status"].get("conditions", []))
                for other in pods
            )

        wait_until(f"a decode pod on another node than {node}", 180, elsewhere, 1.0)
        stack.wait_ready("fleet", namespace, 180)
        router = next(p for p in stack.pods(namespace, "fleet", "router") if p["spec"]["nodeName"] != node)
        with stack.forward(f"pod/{router['metadata']['name']}", namespace) as base, Load(base, "fleet") as load:
            wait_until("answers without the node", 90, load.succeeds_again())
    finally:
        if loss == "power":
            cluster.power_on(node)
        else:
            cluster.restart_agents(node)
        wait_until("all nodes Ready again", 120, lambda: ready_nodes(stack) == len(cluster.nodes()), 1.0)


def ready_nodes(stack: Stack) -> int:
    """How many nodes are Ready."""
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"]["conditions"])
        for item in stack.get("nodes")["items"]
    )
