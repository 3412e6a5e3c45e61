"""Stories of placement in the loop: what is rendered and said as nodes come, go and change, and what is left alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from tandem_operator.api import names
from tandem_operator.config import RenderSettings, Settings
from tandem_operator.placement.capacity import Taint
from tandem_operator.placement.catalogue import bundled
from tandem_operator.placement.facts import NodeFacts, PodFacts
from tandem_operator.placement.inventory import Inventory
from tandem_operator.reconcile.errors import Waiting
from tandem_operator.reconcile.models import Models, ReadConfig, Unread
from tandem_operator.reconcile.placement import PlacementStep
from tandem_operator.reconcile.placer import Placer
from tandem_operator.reconcile.reconciler import Reconciler

from tests.operator.builders import body, emulated_body
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


async def test_the_sample_model_runs_on_the_cpu_of_any_node_with_gpus_around_or_without() -> None:
    for world in (make(body()), make(body(), h100_sxm=2)):
        await world.settle()
        assert world.condition("Ready")["status"] == "True"
        assert world.condition("Placed")["reason"] == "AnyNode"
        assert "cannot read file:///models/tiny" in world.condition("Placed")["message"]
        assert "placement" not in world.infd()["status"]
        for role in names.POOL_ROLES:
            assert "affinity" not in world.pod(role)
            assert world.devices(role) == 0


async def test_without_an_inventory_nothing_changes() -> None:
    plain = World()
    plain.cluster.add(body())
    await plain.settle()
    placed = make(body())
    await placed.settle()
    for name in plain.cluster.names("Deployment"):
        assert plain.cluster.find_one("Deployment", name)["spec"] == placed.cluster.find_one("Deployment", name)["spec"]


async def test_a_known_model_goes_to_the_classes_that_meet_the_objective_at_the_lowest_cost() -> None:
    world = make(emulated("Llama-3.1-70B"), h100_sxm=2, l40s=2, l4=2)
    await world.settle()
    assert world.classes("decode") == {"h100-sxm"}
    assert world.devices("decode") == 4
    placed = world.placement()["decode"]
    assert (placed["class"], placed["gpus"], placed["tensorParallel"]) == ("h100-sxm", 4, 4)
    assert "requests/s per replica" in placed["why"]
    rejected = {one["class"]: one["reason"] for one in placed["rejected"]}
    assert "GiB" in rejected["l4"]
    assert "1 x l40s offer 40 GiB" in rejected["l40s"], "one device each: PCIe is no link for a split model"
    assert world.condition("Placed")["status"] == "True"
    assert "decode on h100-sxm TP4" in world.condition("Placed")["message"]
    assert [notice.reason for notice in world.cluster.notices].count("Placed") == 1


async def test_emulated_pods_take_the_predicted_speed() -> None:
    world = make(emulated("Llama-3.1-70B"), h100_sxm=2)
    await world.settle()
    data = world.cluster.find_one("ConfigMap", "chat-coefficients")["data"]
    assert set(data) == {"prefill.json", "decode.json"}
    arguments = world.pod("decode")["containers"][0]["args"]
    assert arguments[arguments.index("--coefficients") + 1] == "/etc/tandem/coefficients/decode.json"


async def test_without_devices_emulated_pods_of_a_known_model_take_the_speed_of_the_class_that_is_named() -> None:
    runtime = {"executor": "Emulated", "emulated": {"hardwareClass": "h100-sxm"}}
    world = make(emulated("Llama-3.1-70B", runtime=runtime))
    await world.settle()
    assert world.condition("Placed")["reason"] == "AnyNode"
    assert world.devices("decode") == 0
    speed = json.loads(world.cluster.find_one("ConfigMap", "chat-coefficients")["data"]["decode.json"])
    assert speed["kv_bytes_per_token"] == 327_680, "of the model, not of the bundled 8B"


async def test_who_wants_no_devices_gets_none_and_gives_back_what_was_chosen() -> None:
    world = make(emulated(), h100_sxm=1)
    await world.settle()
    assert world.devices("decode") == 1
    world.change(prefill={"gpus": 0}, decode={"gpus": 0})
    await world.settle()
    assert world.devices("prefill") == world.devices("decode") == 0
    assert world.condition("Placed")["message"] == "pods run on the CPU of any node: gpus is 0"
    world.change(prefill={"gpus": 0}, decode={"gpus": 2})
    await world.settle()
    assert (world.devices("prefill"), world.devices("decode")) == (0, 2)


async def test_torch_is_given_one_device_and_a_model_that_needs_more_is_refused_with_the_arithmetic() -> None:
    async def read(uri: str) -> tuple[dict[str, Any], None]:
        return CONFIGS["Llama-3.1-70B" if "70b" in uri else "Llama-3.1-8B"], None

    for uri, fits in (("hf://meta/8b", True), ("hf://meta/70b", False)):
        world = Placed(read)
        world.nodes("h100-sxm", 2)
        world.cluster.add(body(model={"uri": uri, "maxContextTokens": 16384}))
        await world.look()
        assert world.condition("Placed")["status"] == ("True" if fits else "False")
        assert (len(world.cluster.names("Deployment")) > 0) == fits
        if fits:
            assert world.devices("prefill") == 1
        else:
            message = world.condition("Ready")["message"]
            assert "GiB (weights" in message
            assert "1 x h100-sxm offer" in message
            assert world.condition("Accepted")["status"] == "True"


async def test_a_repository_that_does_not_answer_costs_placement_and_nothing_else() -> None:
    async def read(uri: str) -> tuple[dict[str, Any], None]:
        raise Unread("it answers 401")

    world = Placed(read)
    world.nodes("h100-sxm", 1)
    world.cluster.add(body(model={"uri": "hf://meta/gated"}))
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert "it answers 401; give model.config, or gpus" in world.condition("Placed")["message"]


async def test_what_the_user_says_is_done_without_knowing_the_model() -> None:
    pool = {"gpus": 1, "hardwareClasses": ["l40s", "h100-sxm"]}
    world = make(body(prefill=pool, decode={"gpus": 1}), h100_sxm=1, l40s=1)
    await world.settle()
    assert world.classes("prefill") == {"l40s", "h100-sxm"}
    assert world.classes("decode") == set()
    assert world.devices("prefill") == world.devices("decode") == 1
    assert world.condition("Placed")["reason"] == "AsAsked"


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        ({"hardwareClasses": ["h100"]}, "there is no HardwareClass 'h100'"),
        ({"hardwareClasses": ["h100-sxm"], "gpus": 1, "replicas": 1}, ""),
        ({"hardwareClasses": ["h100-sxm", "mi300x"]}, "a pod takes one kind of device"),
    ],
)
async def test_a_wish_that_cannot_be_is_told(pool: dict[str, Any], says: str) -> None:
    world = make(body(decode=pool), h100_sxm=1)
    await world.look()
    assert world.condition("Placed")["status"] == ("False" if says else "True")
    assert says in world.condition("Placed")["message"]


async def test_a_change_to_hardware_that_cannot_be_leaves_what_runs_alone() -> None:
    world = make(emulated(), h100_sxm=2)
    await world.settle()
    before = world.pod("decode")
    world.change(decode={"gpus": 16})
    assert await world.look() == math.inf
    assert world.condition("Placed")["status"] == "False"
    assert "a replica of 16 devices fits no single node" in world.condition("Placed")["message"]
    assert "what ran before is left as it is" in world.condition("Ready")["message"]
    assert world.pod("decode") == before
    assert world.infd()["status"]["decode"]["summary"] == "1/1"


async def test_an_objective_that_became_too_strict_is_told_and_what_runs_is_still_looked_after() -> None:
    world = make(emulated(), h100_sxm=2)
    await world.settle()
    before = world.pod("decode")
    decode = world.infd()["spec"].get("decode", {})
    world.change(slo=[{"class": "x", "ttft": {"base": "1ms"}, "tpot": "50ms"}], decode={**decode, "replicas": 2})
    await world.settle()
    assert world.condition("Placed")["status"] == world.condition("Ready")["status"] == "False"
    assert world.condition("Ready")["reason"] == "NoFit"
    assert "is above 1 ms" in world.condition("Ready")["message"]
    assert world.pod("decode") == before
    assert world.infd()["status"]["decode"]["summary"] == "2/2", "the count is followed all the same"


async def test_when_all_nodes_that_hold_the_model_go_the_pools_stay_and_wait_for_them() -> None:
    world = make(emulated("Llama-3.1-70B"), l4=2)
    nodes = world.nodes("h100-sxm", 2)
    await world.settle()
    before = {role: world.pod(role) for role in names.POOL_ROLES}
    for node in nodes:
        world.inventory.remove_node(node)
    await world.settle()
    assert world.condition("Placed")["reason"] == "NoFit"
    assert "what was chosen before stays" in world.condition("Placed")["message"]
    assert {role: world.pod(role) for role in names.POOL_ROLES} == before
    world.nodes("h100-sxm", 2)
    await world.settle()
    assert world.condition("Placed")["reason"] == "Chosen"
    assert {role: world.pod(role) for role in names.POOL_ROLES} == before


async def test_more_nodes_of_a_cheaper_class_do_not_move_pods_that_stand_unless_it_pays() -> None:
    world = make(emulated(), h100_sxm=2)
    await world.settle()
    node = "node-1"
    for role in names.POOL_ROLES:
        world.run_pods(node, role, world.devices(role))
    before = {role: world.pod(role) for role in names.POOL_ROLES}
    world.nodes("h100-sxm", 5)
    await world.settle()
    assert {role: world.pod(role) for role in names.POOL_ROLES} == before


async def test_after_a_restart_of_the_operator_what_runs_is_kept_word_for_word() -> None:
    world = make(emulated("Llama-3.1-70B"), h100_sxm=2, a100_sxm4_80gb=2)
    await world.settle()
    before = {role: world.pod(role) for role in names.POOL_ROLES}
    changed = [
        one.model_copy(update={"spec": one.spec.model_copy(update={"match": one.spec.match[:1]})})
        for one in bundled().values()
    ]
    world.inventory.set_classes(changed)  # an upgrade of the catalogue: other labels for the same classes
    world.restart_operator("image:2")
    await world.settle()
    assert {role: world.pod(role) for role in names.POOL_ROLES} == before


async def test_nodes_that_go_are_followed_and_the_other_pool_stays() -> None:
    world = make(emulated("Llama-3.1-70B", decode={"hardwareClasses": ["a100-sxm4-80gb"]}))
    h100 = world.nodes("h100-sxm", 2)
    await world.settle()
    world.nodes("a100-sxm4-80gb", 2)
    await world.settle()
    assert world.placement()["prefill"]["class"] == "h100-sxm", "which has no room for it"
    stays = world.pod("decode")
    for node in h100:
        world.inventory.remove_node(node)
    await world.settle()
    assert world.classes("prefill") == {"a100-sxm4-80gb"}
    assert world.pod("decode") == stays


async def test_cordoned_nodes_take_no_new_pods_but_those_that_stand_stay() -> None:
    world = make(emulated("Llama-3.1-70B", decode={"hardwareClasses": []}))
    (first, second) = world.nodes("h100-sxm", 2)
    await world.settle()
    for role in names.POOL_ROLES:
        world.run_pods(first, role, world.devices(role))
    before = {role: world.pod(role) for role in names.POOL_ROLES}
    world.nodes("a100-sxm4-80gb", 4)
    for node in (first, second):
        world.inventory.put_node(
            NodeFacts(
                name=node, labels={"nvidia.com/gpu.product": PRODUCTS["h100-sxm"]}, devices={"nvidia.com/gpu": 8},
                cordoned=True,
            )
        )  # fmt: skip
    await world.settle()
    assert {role: world.pod(role) for role in names.POOL_ROLES} == before


async def test_full_nodes_are_passed_over_and_tainted_ones_too() -> None:
    world = make(emulated("Llama-3.1-70B"))
    world.nodes("h100-sxm", 2, taints=(Taint("team", "b"),))
    full = world.nodes("h100-sxm", 1)
    world.inventory.put_pod(PodFacts(key="x/y", node=full[0], devices={"nvidia.com/gpu": 5}))
    world.nodes("a100-sxm4-80gb", 2)
    await world.settle()
    assert {world.placement()[role]["class"] for role in names.POOL_ROLES} == {"a100-sxm4-80gb"}


async def test_pods_that_find_no_room_say_the_first_blocking_fact_and_what_to_do() -> None:
    world = make(emulated("Llama-3.1-70B", decode={"replicas": 2, "gpus": 8}))
    node = world.nodes("h100-sxm", 1)[0]
    world.inventory.put_pod(PodFacts(key="x/y", node=node, devices={"nvidia.com/gpu": 3}))
    await world.look()
    pod = {
        "kind": "Pod",
        "metadata": {
            "name": "chat-decode-1", "namespace": "team",
            "labels": names.pod_labels("chat", "decode", next(iter(world.revisions()))),
        },
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                 "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}
            ],
        },
    }  # fmt: skip
    world.cluster.add(pod)
    await world.look()
    said = world.condition("DecodeAvailable")
    assert (said["status"], said["reason"]) == ("False", "WaitingForCapacity")
    assert "a pod takes 8 x nvidia.com/gpu on one node (h100-sxm: 1 nodes, 5 of 8 devices free" in said["message"]
    assert "0 replicas of 8 would fit; 5 devices stranded" in said["message"]
    assert "allow more classes in decode.hardwareClasses" in said["message"]
    assert world.condition("Placed")["status"] == "True"


async def test_while_nodes_are_being_listed_a_deployment_that_needs_them_waits_and_others_do_not() -> None:
    world = Placed(starting=lambda: True)
    world.ready = False
    world.cluster.add(emulated())
    with pytest.raises(Waiting, match="nodes are being listed"):
        await world.look()
    assert world.cluster.names("Deployment") == []
    plain = Placed(starting=lambda: True)
    plain.ready = False
    plain.cluster.add(body())
    await plain.settle()
    assert plain.condition("Ready")["status"] == "True"


async def test_an_operator_that_cannot_see_nodes_any_more_keeps_what_was_chosen() -> None:
    world = make(emulated("Llama-3.1-70B"), h100_sxm=2)
    await world.settle()
    before = {role: world.pod(role) for role in names.POOL_ROLES}
    world.inventory, world.ready = Inventory(), False
    world.restart_operator()
    await world.settle()
    assert {role: world.pod(role) for role in names.POOL_ROLES} == before
    assert "as chosen before" in world.condition("Placed")["message"]


async def test_a_wish_that_is_taken_back_goes_and_one_pools_wish_leaves_the_other_as_it_was_chosen() -> None:
    world = make(body(decode={"gpus": 1}), h100_sxm=1)
    await world.settle()
    assert (world.devices("prefill"), world.devices("decode")) == (0, 1)
    world.change(decode={})
    await world.settle()
    assert (world.devices("prefill"), world.devices("decode")) == (0, 0)

    chosen = make(emulated("Llama-3.1-70B"), h100_sxm=2)
    await chosen.settle()
    before = chosen.pod("prefill")
    chosen.ready = False
    chosen.change(decode={"gpus": chosen.devices("decode")})
    chosen.restart_operator()
    await chosen.settle()
    assert chosen.condition("Placed")["reason"] == "AsAsked"
    assert chosen.pod("prefill") == before
    assert chosen.classes("decode") == {"h100-sxm"}


async def test_deployments_that_are_planned_at_the_same_moment_do_not_all_take_the_same_devices() -> None:
    world = Placed()
    world.nodes("h100-sxm", 1)
    world.nodes("a100-sxm4-80gb", 3)
    for name in ("chat", "other", "third"):
        one = emulated("Llama-3.1-70B", prefill={"gpus": 4}, decode={"gpus": 4})
        world.cluster.add({**one, "metadata": {**one["metadata"], "name": name, "uid": name}})
        await world.operator.reconcile(("team", name))
    chosen = [
        world.cluster.find_one(names.KIND, name)["status"]["placement"][role]["class"]
        for name in ("chat", "other", "third")
        for role in names.POOL_ROLES
    ]
    assert chosen.count("h100-sxm") <= 2, "there is room for two pods of four"
    assert chosen.count("a100-sxm4-80gb") <= 6
