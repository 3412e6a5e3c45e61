"""Nodes that go away: without power, or with their agents dead. Pods come back elsewhere."""

from __future__ import annotations

import pytest

from e2e.cases.load import Load
from e2e.cases.manifests import emulated
from e2e.stack import Stack, wait_until


def place(stack: Stack, namespace: str) -> tuple[str, str]:
    """A fleet whose decode pod stands on a node other than the first, which holds its router (and the cluster's DNS):
    (pod, node)."""
    first = stack.cluster.nodes()[0]
    head, decode = emulated("fleet").split("  decode:", 1)
    decode, router = decode.split("  router:", 1)
    decode, router = stand(decode, "NotIn", first), stand(router, "In", first)
    stack.apply(f"{head}  decode:{decode}  router:{router}", namespace)
    stack.wait_ready("fleet", namespace)
    pod = stack.pods(namespace, "fleet", "decode")[0]
    return pod["metadata"]["name"], pod["spec"]["nodeName"]


def stand(pool: str, operator: str, node: str) -> str:
    """The pool's YAML with an affinity to nodes."""
    affinity = f"""
      affinity:
       nodeAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
         nodeSelectorTerms:
         - matchExpressions: [{{key: kubernetes.io/hostname, operator: {operator}, values: [{node}]}}]"""
    return pool.replace("     spec:", f"     spec:{affinity}", 1)


@pytest.mark.parametrize("loss", ["power", "agents"])
def test_pods_of_a_lost_node_come_back_elsewhere(stack: Stack, namespace: str, loss: str) -> None:
    cluster = stack.cluster
    if cluster.kind != "local":
        pytest.skip(f"a {cluster.kind} cluster has no node whose power can be cut from here")
    pod, node = place(stack, namespace)
    kept = stack.cluster.nodes()[0]
    with Load(stack, namespace, "fleet", node=kept) as load:
        lose(stack, namespace, loss, pod, node, load)


def lose(stack: Stack, namespace: str, loss: str, pod: str, node: str, load: Load) -> None:
    """The only decode pod goes with its node: requests wait in the router for the replacement, and streams go on."""
    cluster = stack.cluster
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
