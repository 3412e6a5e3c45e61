"""Pods that ask for devices on a real kubelet's node. In no lane: while it has devices, others' pods might go there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from e2e.cases.fleet import SMALL, Json, deployment, devices_of, role_of, slo
from e2e.cluster.kwok import MARK
from e2e.node_labels import gfd
from e2e.stack import Stack, stream_chat, wait_until

POOLS = ("prefill", "decode")
REAL_CLASS = "h100-nvl"
REAL_LABELS = gfd("NVIDIA-H100-NVL", 95830, "9.0", "hopper")


@pytest.fixture
def real_devices(stack: Stack) -> Iterator[str]:
    """A real kubelet's node with two GPUs that are not there, and the labels of a class that no fake node has."""
    cluster = stack.cluster
    node = cluster.kubectl("get", "nodes", "--selector", f"!{MARK}", "--output=name").split()[-1].partition("/")[2]
    amounts = {"capacity": {"nvidia.com/gpu": "2"}, "allocatable": {"nvidia.com/gpu": "2"}}
    cluster.kubectl("label", "node", node, *(f"{key}={value}" for key, value in REAL_LABELS.items()))
    patch(stack, node, {"status": amounts})
    yield node
    cluster.kubectl("label", "node", node, *(f"{key}-" for key in REAL_LABELS))
    patch(stack, node, {"status": {part: {"nvidia.com/gpu": None} for part in amounts}})


def patch(stack: Stack, node: str, body: Json) -> None:
    stack.cluster.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "--patch", json.dumps(body))


def test_a_real_kubelet_runs_pods_that_ask_for_devices(stack: Stack, namespace: str, real_devices: str) -> None:
    wait_until("the node is recognised", 90, lambda: stack.get("hardwareclass", REAL_CLASS)["status"]["nodes"] == 1)
    body = deployment("real", SMALL, slo=slo("2s", "60ms"))
    for role in (*POOLS, "router"):
        del body["spec"][role]["template"]
    stack.apply(json.dumps(body), namespace)
    stack.wait_ready("real", namespace)
    pods = [pod for pod in stack.pods(namespace, "real") if role_of(pod) in POOLS]
    assert [(pod["spec"]["nodeName"], devices_of(pod)) for pod in pods] == [(real_devices, {"nvidia.com/gpu": 1})] * 2
    with stack.forward("service/real", namespace) as base:
        assert "".join(stream_chat(base, "real", "hello", max_tokens=8))
