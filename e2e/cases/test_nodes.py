"""Nodes that go away: without power, or with their agents dead. Pods come back elsewhere."""

from __future__ import annotations

from functools import partial

import pytest

from e2e.cases.load import Load
from e2e.cases.manifests import emulated
from e2e.stack import Stack, wait_until

WAYS = ("power", "agents")


def place(stack: Stack, namespace: str, name: str, kept: str, lost: str) -> str:
    """A fleet whose decode pod stands on the node to be lost, and may go to the one that is kept: its name.

    Its router stands on the one that is kept, as the cluster's DNS does.
    """
    head, decode = emulated(name).split("  decode:", 1)
    decode, router = decode.split("  router:", 1)
    decode, router = stand(decode, [kept, lost], lost), stand(router, [kept], kept)
    stack.apply(f"{head}  decode:{decode}  router:{router}", namespace)
    stack.wait_ready(name, namespace)
    (pod,) = stack.pods(namespace, name, "decode")
    assert pod["spec"]["nodeName"] == lost
    return str(pod["metadata"]["name"])


def stand(pool: str, nodes: list[str], rather: str) -> str:
    """The pool's YAML with an affinity: to some nodes only, and among them rather to one."""
    affinity = f"""
      affinity:
       nodeAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
         nodeSelectorTerms:
         - matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{", ".join(nodes)}]}}]
        preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          preference: {{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{rather}]}}]}}"""
    return pool.replace("     spec:", f"     spec:{affinity}", 1)


def test_pods_of_two_lost_nodes_come_back_elsewhere(stack: Stack, namespace: str) -> None:
    """One node loses its power, another its agents, at once; each held the only decode pod of a fleet under load:
    requests wait in the routers for the replacements, and streams go on."""
    cluster = stack.cluster
    if cluster.kind != "local":
        pytest.skip(f"a {cluster.kind} cluster has no node whose power can be cut from here")
    kept, *others = cluster.nodes()
    lost = dict(zip(WAYS, others, strict=True))
    pods = {way: place(stack, namespace, way, kept, node) for way, node in lost.items()}
    loads = {way: Load(stack, namespace, way, node=kept) for way in WAYS}
    with loads["power"], loads["agents"]:
        try:
            cluster.power_off(lost["power"])
            cluster.kill_agents(lost["agents"])
            for way in WAYS:
                whole = partial(elsewhere, stack, namespace, way, pods[way], kept)
                wait_until(f"the decode pod of {way} on {kept}", 180, whole, 1.0)
            for way in WAYS:
                stack.wait_ready(way, namespace, 180)
                wait_until(f"answers of {way} without the node", 90, loads[way].succeeds_again())
        finally:
            cluster.power_on(lost["power"])
            cluster.restart_agents(lost["agents"])
            wait_until("all nodes Ready again", 120, lambda: ready_nodes(stack) == len(cluster.nodes()), 1.0)


def elsewhere(stack: Stack, namespace: str, name: str, gone: str, node: str) -> bool:
    """Whether a ready decode pod stands on the node, and it is not the one that went."""
    pods = stack.pods(namespace, name, "decode")
    return bool(pods) and all(
        pod["metadata"]["name"] != gone
        and pod["spec"].get("nodeName") == node
        and any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
        for pod in pods
    )


def ready_nodes(stack: Stack) -> int:
    """How many nodes are Ready."""
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"]["conditions"])
        for item in stack.get("nodes")["items"]
    )
