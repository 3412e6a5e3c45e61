"""Nodes with the labels that GFD, AMD's labeller and clouds really write, for tests of recognition and inventory."""

from __future__ import annotations

from typing import Any

from tandem_operator.placement.capacity import Taint
from tandem_operator.placement.facts import NodeFacts, PodFacts


def gfd(product: str, memory_mib: int, capability: str, family: str, **more: str) -> dict[str, str]:
    """What NVIDIA's GPU Feature Discovery writes."""
    major, minor = capability.split(".")
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.compute.major": major,
        "nvidia.com/gpu.compute.minor": minor,
        "nvidia.com/gpu.family": family,
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.strategy": "single",
        **more,
    }


H100 = gfd("NVIDIA-H100-80GB-HBM3", 81559, "9.0", "hopper")
A100 = gfd("NVIDIA-A100-SXM4-80GB", 81920, "8.0", "ampere")
L4 = gfd("NVIDIA-L4", 23034, "8.9", "ada-lovelace")
B200 = gfd("NVIDIA-B200", 183359, "10.0", "blackwell")
GB200 = gfd("NVIDIA-GB200", 189471, "10.0", "blackwell", **{"kubernetes.io/arch": "arm64"})


def amd(prefix: str, **labels: str) -> dict[str, str]:
    """What ROCm's node labeller writes, under amd.com or beta.amd.com."""
    return {f"{prefix}/gpu.{key.replace('_', '-')}": value for key, value in labels.items()}


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
