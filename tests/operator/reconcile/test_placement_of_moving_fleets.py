"""Stories of placement in the loop as nodes come, go and change: what follows them, and what is left alone."""

from __future__ import annotations

import pytest
from tandem_operator.api import names
from tandem_operator.placement.capacity import Taint
from tandem_operator.placement.catalogue import bundled
from tandem_operator.placement.facts import NodeFacts, PodFacts
from tandem_operator.placement.inventory import Inventory
from tandem_operator.reconcile.errors import Waiting

from tests.operator.builders import body
from tests.operator.placed_world import PRODUCTS, Placed, emulated, make


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


async def test_pods_that_serve_on_cpus_are_not_moved_when_the_first_devices_come_unless_somebody_asks() -> None:
    world = make(emulated())
    await world.settle()
    assert world.condition("Placed")["reason"] == "AnyNode"
    before = {role: world.pod(role) for role in names.POOL_ROLES}
    world.nodes("h100-sxm", 2)
    await world.settle()
    assert {role: world.pod(role) for role in names.POOL_ROLES} == before
    assert "not moved to devices that came since; name hardwareClasses" in world.condition("Placed")["message"]
    world.restart_operator("image:2")
    await world.settle()
    assert {role: world.pod(role) for role in names.POOL_ROLES} == before
    world.change(prefill={"hardwareClasses": ["h100-sxm"]})
    await world.settle()
    assert world.classes("prefill") == {"h100-sxm"}


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


async def test_devices_that_are_given_back_are_promised_to_nobody() -> None:
    world = Placed()
    world.nodes("h100-sxm", 1)
    world.nodes("a100-sxm4-80gb", 3)
    large = emulated("Llama-3.1-70B", prefill={"gpus": 4}, decode={"gpus": 4})
    for name in ("chat", "other"):
        world.cluster.add({**large, "metadata": {**large["metadata"], "name": name, "uid": name}})

    async def chosen(name: str) -> list[str]:
        await world.operator.reconcile(("team", name))
        placement = world.cluster.find_one(names.KIND, name)["status"]["placement"]
        return [placement[role]["class"] for role in names.POOL_ROLES]

    first = await chosen("chat")
    world.change(prefill={"gpus": 0}, decode={"gpus": 0})
    await world.operator.reconcile(("team", "chat"))
    assert await chosen("other") == first
