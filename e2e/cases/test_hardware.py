"""Hardware classes on a real API server: installed, edited by people, found on nodes, told about when unknown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.cases.hardware import classes, left_out, upgrade
from e2e.cluster import ClusterError
from e2e.cluster.kwok import FakeNode, FakeNodes
from e2e.stack import Stack, wait_until

H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
H20 = {"nvidia.com/gpu.product": "NVIDIA-H20", "nvidia.com/gpu.memory": "97871", "nvidia.com/gpu.family": "hopper"}


@pytest.fixture(scope="module")
def nodes(stack: Stack) -> Iterator[FakeNodes]:
    with FakeNodes(stack.cluster) as fake:
        yield fake


def gpu_node(name: str, labels: dict[str, str]) -> FakeNode:
    return FakeNode(name, labels, {"nvidia.com/gpu": 8})


def status(stack: Stack, name: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.get("hwc", name).get("status", {})
    return found


def test_all_bundled_classes_are_there_with_a_status_that_says_what_to_do(stack: Stack) -> None:
    def told() -> bool:
        items = classes(stack).values()
        return len(items) >= 36 and all(item.get("status", {}).get("conditions") for item in items)

    wait_until("36 classes with a status", 60, told)
    (said,) = [one for one in status(stack, "tpu-v5p")["conditions"] if one["type"] == "Available"]
    assert (said["status"], said["reason"]) == ("False", "NoNodes")
    assert "tandem.dev/hardware-class: tpu-v5p" in said["message"]


def test_kubectl_get_shows_nodes_devices_and_what_is_stranded_as_nodes_come_and_go(
    stack: Stack, nodes: FakeNodes, namespace: str
) -> None:
    nodes.add([gpu_node(f"hardware-{number}", H100) for number in range(3)])
    wait_until("24 free devices", 90, lambda: status(stack, "h100-sxm").get("free") == 24)
    stack.apply(json.dumps(holder("holder", "hardware-0", 3)), namespace)
    wait_until("a pod holds 3", 90, lambda: status(stack, "h100-sxm").get("free") == 21)
    assert status(stack, "h100-sxm")["stranded"] == 5
    shapes = {shape["devices"]: shape for shape in status(stack, "h100-sxm")["shapes"]}
    assert (shapes[8]["replicas"], shapes[8]["stranded"]) == (2, 5)
    stack.cluster.kubectl("cordon", "hardware-1")
    wait_until("a cordoned node offers nothing", 90, lambda: status(stack, "h100-sxm").get("free") == 13)
    stack.cluster.kubectl("delete", "pod", "holder", "--namespace", namespace, "--grace-period=0", "--force")
    nodes.remove("hardware-1")
    wait_until("16 free devices", 90, lambda: status(stack, "h100-sxm").get("free") == 16)
    table = stack.cluster.kubectl("get", "hwc", "h100-sxm", "--output", "wide")
    assert "2 replicas of 8 would fit; 0 devices stranded" in table
    nodes.remove("hardware-0", "hardware-2")
    wait_until("no node is left", 90, lambda: status(stack, "h100-sxm").get("nodes") == 0)


def holder(name: str, node: str, devices: int) -> dict[str, Any]:
    """A pod on a node of its own choice, as somebody else's would be."""
    secure = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 1,
    }
    container = {
        "name": "main",
        "image": "localhost/nothing:1",
        "resources": {"limits": {"nvidia.com/gpu": str(devices)}},
        "securityContext": {**secure, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    spec = {"nodeName": node, "containers": [container], "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def test_an_unknown_gpu_is_told_by_name_and_its_template_makes_it_known(stack: Stack, nodes: FakeNodes) -> None:
    nodes.add([gpu_node("hardware-unknown", H20)])

    def told() -> str:
        events = stack.get("events")["items"]
        notes = [
            one["message"] for one in events if one["reason"] == "HardwareUnknown" and "NVIDIA-H20" in one["message"]
        ]
        return notes[0] if notes else ""

    note = wait_until("an Event about the unknown GPU", 90, told)
    filled = yaml.safe_load(note.split("---\n")[1])
    try:
        stack.apply(json.dumps(filled))
        wait_until("the new class has the node", 90, lambda: status(stack, "h20").get("free") == 8)
    finally:
        stack.cluster.kubectl("delete", "hwc", "h20", "--ignore-not-found")
        nodes.remove("hardware-unknown")


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ({"memory": "plenty"}, "quantity above 0"),
        ({"constants": {"mfu": "1.4"}}, "a share above 0 and at most 1"),
        ({"flops": {"bf16": None}}, "without 16 bit arithmetic no model runs"),
        ({"devicesPerNode": None, "autoscaling": {"maxNodes": 3}}, "autoscaling needs devicesPerNode"),
        ({"limits": {"computeCapability": "9"}}, "two numbers such as 9.0"),
        ({"resourceName": "gpu"}, "an extended resource with a domain"),
    ],
    ids=["memory", "share", "flops", "autoscaling", "capability", "resource"],
)
def test_a_wrong_class_is_refused_with_a_sentence_a_person_can_act_on(
    stack: Stack, patch: dict[str, Any], says: str
) -> None:
    with pytest.raises(ClusterError) as caught:
        stack.cluster.kubectl("patch", "hwc", "h200-sxm", "--type=merge", "--patch", json.dumps({"spec": patch}))
    assert says in str(caught.value)


def test_edits_survive_helm_upgrade_and_what_values_leave_out_goes_and_comes_back(stack: Stack) -> None:
    edit = json.dumps({"spec": {"pricePerHour": "7.77"}})
    stack.cluster.kubectl("patch", "hwc", "h100-nvl", "--type=merge", "--patch", edit)
    with left_out(stack, "v100-sxm2-32gb"):
        upgrade(stack, "hardwareClasses.h100-nvl.tdpWatts=350")
        wait_until("the value has come", 60, lambda: classes(stack)["h100-nvl"]["spec"]["tdpWatts"] == 350)
        assert classes(stack)["h100-nvl"]["spec"]["pricePerHour"] == "7.77"
