"""A world with nodes of known hardware, and emulated deployments of public models to place in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tandem_operator.api import names
from tandem_operator.config import RenderSettings, Settings
from tandem_operator.placement.catalogue import bundled
from tandem_operator.placement.facts import NodeFacts, PodFacts
from tandem_operator.placement.inventory import Inventory
from tandem_operator.reconcile.models import Models, ReadConfig
from tandem_operator.reconcile.placement import PlacementStep
from tandem_operator.reconcile.placer import Placer
from tandem_operator.reconcile.reconciler import Reconciler

from tests.operator.builders import emulated_body
from tests.operator.performance import public_models
from tests.operator.world import World

PRODUCTS = {
    "h100-sxm": "NVIDIA-H100-80GB-HBM3", "l40s": "NVIDIA-L40S", "a100-sxm4-80gb": "NVIDIA-A100-SXM4-80GB",
    "l4": "NVIDIA-L4",
}  # fmt: skip
CONFIGS: dict[str, Any] = next(
    {name: model.config for name, model in value.items()}
    for value in vars(public_models).values()
    if isinstance(value, dict) and "Llama-3.1-8B" in value
)


class Placed(World):
    """A world with nodes; `nodes("h100-sxm", 2)` adds them."""

    def __init__(self, read: ReadConfig | None = None, starting: Callable[[], bool] = lambda: False) -> None:
        self.inventory = Inventory(bundled().values())
        self.read = read
        self.ready = True
        self.starting = starting
        self.count = 0
        super().__init__()

    def restart_operator(self, image: str = "image:1") -> None:
        settings = Settings(render=RenderSettings(default_runtime_image=image))
        placer = Placer(self.inventory, lambda: self.ready)
        step = PlacementStep(placer, Models(self.read, lambda: 0.0), self.starting)
        self.operator = Reconciler(self.cluster, settings, lambda: self.now, lambda: "secret", step)

    def nodes(self, name: str, count: int, devices: int = 8, **more: Any) -> list[str]:
        made = []
        for _ in range(count):
            self.count += 1
            made.append(f"node-{self.count}")
            labels = {"nvidia.com/gpu.product": PRODUCTS[name]}
            self.inventory.put_node(
                NodeFacts(name=made[-1], labels=labels, devices={"nvidia.com/gpu": devices}, **more)
            )
        return made

    def run_pods(self, node: str, role: str, devices: int, count: int = 1) -> None:
        """Plays scheduler and kubelet: pods of the role stand on the node."""
        for number in range(count):
            key = f"team/chat-{role}-{node}-{number}"
            held = {"nvidia.com/gpu": devices}
            self.inventory.put_pod(PodFacts(key=key, node=node, devices=held, owner="team/chat"))
            self.cluster.add(
                {
                    "kind": "Pod",
                    "metadata": {
                        "name": key.split("/")[1], "namespace": "team",
                        "labels": {**names.pod_labels("chat", role, next(iter(self.revisions())))},
                    },
                    "spec": {"nodeName": node, "containers": []},
                    "status": {"phase": "Running"},
                }
            )  # fmt: skip

    def pod(self, role: str) -> dict[str, Any]:
        found = [self.cluster.find_one("Deployment", name) for name in self.cluster.names("Deployment")]
        template = next(one for one in found if one["metadata"]["labels"]["tandem.dev/role"] == role)["spec"][
            "template"
        ]
        spec: dict[str, Any] = template["spec"]
        return spec

    def classes(self, role: str) -> set[str]:
        """By the product labels that the pods ask for; empty: any node."""
        affinity = self.pod(role).get("affinity", {}).get("nodeAffinity", {})
        required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
        values = {
            value
            for term in required
            for one in term["matchExpressions"]
            if one["key"] == "nvidia.com/gpu.product" and one["operator"] == "In"
            for value in one["values"]
        }
        return {name for name, product in PRODUCTS.items() if product in values}

    def devices(self, role: str) -> int:
        limits = self.pod(role)["containers"][0]["resources"].get("limits", {})
        return int(limits.get("nvidia.com/gpu", 0))

    def placement(self) -> dict[str, Any]:
        found: dict[str, Any] = self.infd()["status"]["placement"]
        return found


def emulated(model: str = "Llama-3.1-8B", **spec: Any) -> dict[str, Any]:
    """An emulated deployment of a known model."""
    return emulated_body("chat", **{"model": {"config": CONFIGS[model], "maxContextTokens": 16384}, **spec})


def make(given: dict[str, Any], **nodes: int) -> Placed:
    world = Placed()
    for name, count in nodes.items():
        world.nodes(name.replace("_", "-"), count)
    world.cluster.add(given)
    return world
