"""Nodes and pods decoded from JSON: what a pod holds as the scheduler counts it, what a node is worth."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tandem_operator.cluster.objects import Node, Pod, held_devices, node_facts, pod_facts
from tandem_operator.placement.capacity import Taint

GPU = "nvidia.com/gpu"


def container(devices: int = 0, where: str = "limits", **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {where: {GPU: str(devices), "cpu": "500m"}} if devices else {}, **more}


def pod(containers: list[Any], init: list[Any] | None = None, phase: str = "Running", **more: Any) -> Pod:
    spec = {"nodeName": "n", "containers": containers, "initContainers": init or [], **more}
    labels = {"tandem.dev/deployment": "chat"}
    body = {"metadata": {"name": "p", "namespace": "x", "labels": labels}, "spec": spec, "status": {"phase": phase}}
    return msgspec.json.decode(json.dumps(body), type=Pod)


@pytest.mark.parametrize(
    ("containers", "init", "want"),
    [
        ([container(2), container(1)], [], 3),
        ([container(2, "requests")], [], 2),
        ([container(1)], [container(4)], 4),
        ([container(2)], [container(1, restartPolicy="Always")], 3),
        ([container(1)], [container(1, restartPolicy="Always"), container(3)], 4),
        ([container()], [], 0),
    ],
    ids=["together", "requests-only", "init-asks-more", "sidecar", "init-beside-sidecar", "none"],
)
def test_a_pod_holds_what_the_scheduler_counts(containers: list[Any], init: list[Any], want: int) -> None:
    assert held_devices(pod(containers, init).spec).get(GPU, 0) == want


def test_a_pod_that_ended_or_is_not_bound_holds_nothing() -> None:
    assert pod_facts(pod([container(1)], phase="Succeeded")) is None
    assert pod_facts(pod([container(1)], nodeName="")) is None
    assert pod_facts(pod([container()])) is None
    held = pod_facts(pod([container(1)]))
    assert held is not None
    assert (held.key, held.node, held.devices, held.owner) == ("x/p", "n", {GPU: 1}, "x/chat")


def test_a_node_is_what_its_labels_conditions_and_taints_say() -> None:
    body = {
        "metadata": {"name": "n", "labels": {"a": "b"}, "managedFields": [{}]},
        "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule", "timeAdded": "x"}]},
        "status": {
            "allocatable": {
                GPU: "8",
                "cpu": "95",
                "memory": "1Ti",
                "hugepages-1Gi": "0",
                "vpc.amazonaws.com/efa": "32",
            },
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "images": [{"names": ["x"], "sizeBytes": 1}],
        },
    }
    found = node_facts(msgspec.json.decode(json.dumps(body), type=Node))
    assert (found.name, found.ready, found.cordoned) == ("n", True, True)
    assert found.devices == {GPU: 8, "vpc.amazonaws.com/efa": 32}
    assert found.taints == (Taint("k", "", "NoSchedule"),)


def test_a_node_whose_kubelet_never_came_is_not_ready() -> None:
    assert not node_facts(msgspec.json.decode(b'{"metadata": {"name": "n"}}', type=Node)).ready
