"""What nodes say about their devices: keys of labels and how to read their values. Facts of GFD, ROCm, clouds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Final

from tandem_operator.api.hardware_class import GKE_SLICE_LABELS, LABEL_GKE_ACCELERATOR

MIB: Final = 2**20
GIB: Final = 2**30

GFD_PRODUCT: Final = "nvidia.com/gpu.product"
GFD_MEMORY: Final = "nvidia.com/gpu.memory"
"""MiB of one device; of one slice where the whole node is partitioned."""
GFD_FAMILY: Final = "nvidia.com/gpu.family"
GFD_MAJOR: Final = "nvidia.com/gpu.compute.major"
GFD_MINOR: Final = "nvidia.com/gpu.compute.minor"
GFD_REPLICAS: Final = "nvidia.com/gpu.replicas"
GFD_SHARING: Final = "nvidia.com/gpu.sharing-strategy"
GFD_CLIQUE: Final = "nvidia.com/gpu.clique"
"""CLUSTER.CLIQUE of an NVLink domain that spans nodes."""

AMD_PREFIXES: Final = ("amd.com/gpu.", "beta.amd.com/gpu.")
"""AMD's labeller writes both; older ones only the second."""
AMD_PARTITIONS: Final = (
    "amd.com/gpu.compute-memory-partition",
    "beta.amd.com/gpu.compute-memory-partition",
    "amd.com/compute-memory-partition",
)
AMD_WHOLE: Final = "spx"
"""Compute partition mode in which one device is one device."""

CLOUD_MEMORY: Final = ("karpenter.k8s.aws/instance-gpu-memory", "eks.amazonaws.com/instance-gpu-memory")
"""MiB of one device."""
TPU_TOPOLOGY: Final = "cloud.google.com/gke-tpu-topology"
GKE_NODE_POOL: Final = "cloud.google.com/gke-nodepool"
ZONE: Final = "topology.kubernetes.io/zone"
ARCHITECTURE: Final = "kubernetes.io/arch"

PRODUCTS: Final = (
    GFD_PRODUCT,
    LABEL_GKE_ACCELERATOR,
    "cloud.google.com/gke-tpu-accelerator",
    *(f"{prefix}product-name" for prefix in AMD_PREFIXES),
    *(f"{prefix}device-id" for prefix in AMD_PREFIXES),
    "karpenter.k8s.aws/instance-gpu-name",
    "eks.amazonaws.com/instance-gpu-name",
    "node.kubernetes.io/instance-type",
)
"""Labels that name a device, the most telling first."""

KEPT: Final = frozenset(
    (
        *PRODUCTS, GFD_MEMORY, GFD_FAMILY, GFD_MAJOR, GFD_MINOR, GFD_REPLICAS, GFD_SHARING, GFD_CLIQUE,
        *(f"{prefix}vram" for prefix in AMD_PREFIXES), *AMD_PARTITIONS, *CLOUD_MEMORY, *GKE_SLICE_LABELS,
        TPU_TOPOLOGY, GKE_NODE_POOL, ZONE, ARCHITECTURE,
    )
)  # fmt: skip
"""All that is read here."""

MIG_PREFIX: Final = "nvidia.com/mig-"
SHARED_RESOURCE: Final = "nvidia.com/gpu.shared"
_DEVICE: Final = re.compile(
    r"nvidia\.com/(gpu|gpu\.shared|mig-.+)|amd\.com/(gpu|[a-z]+_nps\d)|habana\.ai/gaudi|google\.com/tpu"
    r"|aws\.amazon\.com/neuron|gpu\.intel\.com/(i915|xe)"
)
_PART: Final = re.compile(r"^(.*?)(-SHARED|-MIG-[0-9]+g\.[0-9]+gb.*)$")


def is_device(resource: str) -> bool:
    """Whether an extended resource is an accelerator, though no class names it."""
    return _DEVICE.fullmatch(resource) is not None


def product(labels: Mapping[str, str]) -> str:
    """How the node names its devices; empty when it does not."""
    return next((labels[key] for key in PRODUCTS if labels.get(key)), "")


def product_label(labels: Mapping[str, str]) -> str:
    """The key of what `product` returns; empty when there is none."""
    return next((key for key in PRODUCTS if labels.get(key)), "")


def whole_product(name: str) -> str:
    """Without what GFD appends to devices that are shared or partitioned."""
    found = _PART.match(name)
    return whole_product(found[1]) if found else name


def is_shared(labels: Mapping[str, str], resource: str = "") -> bool:
    """Whether several pods get the same device (time-slicing, MPS)."""
    return resource == SHARED_RESOURCE or (
        labels.get(GFD_PRODUCT, "").endswith("-SHARED")
        or labels.get(GFD_SHARING, "none") not in ("none", "")
        or _integer(labels.get(GFD_REPLICAS, "1")) > 1
        or bool(labels.get("cloud.google.com/gke-gpu-sharing-strategy"))
    )


def part_of_device(labels: Mapping[str, str], resource: str = "") -> str:
    """Words for a device that is shared or partitioned; empty for whole ones."""
    if resource.startswith(MIG_PREFIX) or resource == SHARED_RESOURCE:
        return f"{resource} of {product(labels)}"
    name = labels.get(GFD_PRODUCT, "")
    if whole_product(name) != name:
        return name
    if is_shared(labels):
        return f"{product(labels)} shared ({labels.get(GFD_SHARING, 'several pods get one device')})"
    size = labels.get("cloud.google.com/gke-gpu-partition-size")
    if size:
        return f"{product(labels)} partitioned into {size}"
    mode = next((labels[key] for key in AMD_PARTITIONS if labels.get(key)), AMD_WHOLE)
    return "" if mode.lower().startswith(AMD_WHOLE) else f"{product(labels)} partitioned as {mode}"


def memory(labels: Mapping[str, str]) -> int | None:
    """Bytes of one device; None when no label tells."""
    for key in (GFD_MEMORY, *CLOUD_MEMORY):
        if mebibytes := _integer(labels.get(key, "0")):
            return mebibytes * MIB
    for prefix in AMD_PREFIXES:
        found = re.fullmatch(r"([0-9]+)G", labels.get(f"{prefix}vram", ""))
        if found:
            return int(found[1]) * GIB
    return None


def capability(labels: Mapping[str, str]) -> tuple[int, int] | None:
    """Compute capability as two numbers; None when the node does not tell."""
    if GFD_MAJOR not in labels:
        return None
    return numbers(f"{labels[GFD_MAJOR]}.{labels.get(GFD_MINOR, '0')}")


def numbers(text: str) -> tuple[int, int] | None:
    """Two numbers with a dot between: 10.0 is more than 9.0, as texts it is less."""
    found = re.fullmatch(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def domain(labels: Mapping[str, str], devices: int) -> str:
    """Of nodes that share a scale-up domain with others: NVLink clique, or node pool of a TPU slice over several."""
    if clique := labels.get(GFD_CLIQUE):
        return clique
    chips = re.findall(r"\d+", labels.get(TPU_TOPOLOGY, ""))
    return labels.get(GKE_NODE_POOL, "") if chips and prod(map(int, chips)) > devices > 0 else ""


def _integer(text: str) -> int:
    return int(text) if text.isdigit() else 0
