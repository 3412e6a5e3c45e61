"""Nodes and pods as the inventory sees them, for tests of placement."""

from __future__ import annotations

from typing import Any

from tandem_operator.placement.capacity import Taint
from tandem_operator.placement.facts import NodeFacts, PodFacts

from e2e.node_labels import gfd

H100 = gfd("NVIDIA-H100-80GB-HBM3", 81559, "9.0", "hopper")
A100 = gfd("NVIDIA-A100-SXM4-80GB", 81920, "8.0", "ampere")
L4 = gfd("NVIDIA-L4", 23034, "8.9", "ada-lovelace")
B200 = gfd("NVIDIA-B200", 183359, "10.0", "blackwell")
GB200 = gfd("NVIDIA-GB200", 189471, "10.0", "blackwell", **{"kubernetes.io/arch": "arm64"})


def node(name: str = "n", labels: dict[str, str] | None = None, devices: int = 8, **more: Any) -> NodeFacts:
    """A node of 8 H100 unless told otherwise; `resource` and `taints` (key:effect) as plain texts."""
    resource = more.pop("resource", "nvidia.com/gpu")
    taints = tuple(Taint(*text.split("=")) for text in more.pop("taints", ()))
    return NodeFacts(
        name=name,
        labels={"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", **(H100 if labels is None else labels)},
        devices={resource: devices},
        taints=taints,
        **more,
    )


def pod(key: str, on: str = "n", devices: int = 1, owner: str = "", resource: str = "nvidia.com/gpu") -> PodFacts:
    """A bound pod that holds devices."""
    return PodFacts(key=key, node=on, devices={resource: devices, "example.com/nic": 1}, owner=owner)
