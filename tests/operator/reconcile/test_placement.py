"""Stories of placement in the loop: what is chosen, rendered and said for a deployment, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from tandem_operator.api import names
from tandem_operator.reconcile.models import Unread

from tests.operator.builders import body
from tests.operator.placed_world import CONFIGS, Placed, emulated, make
from tests.operator.world import World


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


async def test_int8_weights_of_executor_torch_take_no_device_though_there_are_some() -> None:
    async def read(uri: str) -> tuple[dict[str, Any], None]:
        return CONFIGS["Llama-3.1-8B"], None

    world = Placed(read)
    world.nodes("h100-sxm", 2)
    model = {"uri": "hf://meta/8b", "maxContextTokens": 16384, "quantization": "Int8Dynamic"}
    world.cluster.add(body(model=model))
    await world.settle()
    assert world.devices("prefill") == world.devices("decode") == 0
    assert world.condition("Placed")["message"].endswith("executor Torch runs Int8Dynamic on CPUs alone")
    arguments = world.pod("decode")["containers"][0]["args"]
    assert arguments[arguments.index("--quantization") + 1] == "int8-dynamic"


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
