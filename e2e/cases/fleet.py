"""A large, mixed fleet for kwok: 300 nodes of 8 kinds that say what such nodes really say, and deployments for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from e2e.cluster.kwok import MARK, TOLERATION, FakeNode
from e2e.node_labels import amd, gfd, gke, karpenter

Json = dict[str, Any]
NVIDIA = "nvidia.com/gpu"


@dataclass(frozen=True)
class Kind:
    """Nodes of one hardware class, as one labeller or cloud describes them."""

    hardware_class: str
    count: int
    devices: int
    labels: dict[str, str]
    resource: str = NVIDIA
    taints: tuple[dict[str, str], ...] = ()
    zones: tuple[str, ...] = field(default=("a", "b", "c"))

    def nodes(self) -> Iterator[FakeNode]:
        for index in range(self.count):
            zone = {"topology.kubernetes.io/zone": f"zone-{self.zones[index % len(self.zones)]}"}
            name = f"{self.hardware_class}-{index:02}"
            yield FakeNode(name, {**self.labels, **zone}, {self.resource: self.devices}, self.taints)


AMD_MI300X = amd("amd.com", product_name="AMD_Instinct_MI300X_OAM", device_id="74a1", vram="192G", family="AI")
GKE_TAINT = {"key": NVIDIA, "value": "present", "effect": "NoSchedule"}
TEAM_TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
"""A habit on AKS; nobody here tolerates it."""

KINDS = (
    Kind("h100-sxm", 55, 8, gfd("NVIDIA-H100-80GB-HBM3", 81559, "9.0", "hopper")),
    Kind("a100-sxm4-80gb", 45, 8, gfd("NVIDIA-A100-SXM4-80GB", 81920, "8.0", "ampere")),
    Kind("b200-sxm", 10, 8, gfd("NVIDIA-B200", 183359, "10.0", "blackwell")),
    Kind("l40s", 45, 4, karpenter("l40s", "g6e.12xlarge", 4, 45776)),
    Kind("l4", 45, 2, gke("nvidia-l4", "g2-standard-24", 2), taints=(GKE_TAINT,)),
    Kind("h200-sxm", 30, 8, gke("nvidia-h200-141gb", "a3-ultragpu-8g", 8), taints=(GKE_TAINT,)),
    Kind("mi300x", 30, 8, AMD_MI300X, resource="amd.com/gpu"),
    Kind("t4", 40, 4, gfd("Tesla-T4", 15360, "7.5", "turing"), taints=(TEAM_TAINT,)),
)


def nodes() -> list[FakeNode]:
    """All of them."""
    return [node for kind in KINDS for node in kind.nodes()]


def class_of(node: str) -> str:
    """Hardware class of a node of this fleet, by its name."""
    return node.rpartition("-")[0]


def config(layers: int, hidden: int, size: int, heads: int, vocabulary: int = 128_256, **more: Any) -> Json:
    """config.json of a dense model with 8 KV heads of 128."""
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": size,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "vocab_size": vocabulary,
        "max_position_embeddings": 131_072,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        **more,
    }


SMALL = config(32, 4096, 14336, 32)  # Llama 3.1 8B
MIDDLE = config(64, 5120, 25600, 64, 151_936, model_type="qwen3", head_dim=128)  # Qwen3 32B
LARGE = config(80, 8192, 28672, 64)  # Llama 3.1 70B


def deployment(name: str, model: Json, **spec: Any) -> Json:
    """Emulated, all pods on nodes of kwok. `prefill`, `decode`, `slo`, `model_more` are merged into the spec."""
    on_fake_nodes = {"spec": {"tolerations": [TOLERATION], "nodeSelector": {MARK: "fake"}}}
    pools = {
        role: {"replicas": 1, "template": on_fake_nodes, **spec.pop(role, {})}
        for role in ("prefill", "decode", "router")
    }
    return {
        "apiVersion": "tandem.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"config": model, "maxContextTokens": 8192, **spec.pop("model_more", {})},
            "runtime": {"executor": "Emulated", "emulated": {"hardwareClass": "h100-sxm"}},
            **pools,
            **spec,
        },
    }


def slo(ttft: str, tpot: str) -> list[Json]:
    return [{"class": "interactive", "ttft": {"base": ttft}, "tpot": tpot}]


def deployments() -> list[Json]:
    """60 of mixed sizes: small and large models, lax and strict objectives, free choice and fixed classes."""
    made: list[Json] = []
    for index in range(20):
        replicas = {"replicas": 1 + index % 3}
        made.append(deployment(f"small-{index:02}", SMALL, prefill=replicas, decode=replicas, slo=slo("2s", "60ms")))
    for index in range(10):
        made.append(deployment(f"fast-{index:02}", SMALL, slo=slo("500ms", "12ms")))
    for index in range(10):
        made.append(deployment(f"middle-{index:02}", MIDDLE, decode={"replicas": 2}, slo=slo("3s", "50ms")))
    for index in range(8):
        made.append(deployment(f"large-{index:02}", LARGE, slo=slo("3s", "50ms")))
    for index in range(4):
        named = {"hardwareClasses": ["a100-sxm4-80gb", "h100-sxm"]}
        made.append(deployment(f"named-{index:02}", MIDDLE, prefill=named, decode=named, slo=slo("5s", "80ms")))
    for index in range(4):
        amd = {"hardwareClasses": ["mi300x"], "replicas": 2}
        made.append(deployment(f"amd-{index:02}", LARGE, prefill=amd, decode=amd, slo=slo("5s", "80ms")))
    for index in range(4):
        split = {"prefill": {"hardwareClasses": ["h100-sxm"]}, "decode": {"hardwareClasses": ["h200-sxm"]}}
        made.append(deployment(f"split-{index:02}", LARGE, **split, slo=slo("4s", "50ms")))
    return made


def role_of(pod: Json) -> str:
    return str(pod["metadata"]["labels"]["tandem.dev/role"])


def devices_of(pod: Json) -> dict[str, int]:
    """Extended resources that a pod asks for."""
    limits = pod["spec"]["containers"][0]["resources"].get("limits", {})
    return {name: int(amount) for name, amount in limits.items() if "/" in name}


def as_list(objects: list[Json]) -> str:
    """For one `kubectl apply`."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
