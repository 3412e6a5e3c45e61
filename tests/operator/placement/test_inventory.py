"""The inventory: nodes and pods in any order give the same sums as counting afresh; small, and quick to change."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.api.hardware_class import parse_hardware_class
from tandem_operator.placement.capacity import ClassCapacity, Taint
from tandem_operator.placement.catalogue import bundled, entries, manifest
from tandem_operator.placement.facts import NodeFacts, PodFacts
from tandem_operator.placement.inventory import Inventory

from e2e.node_labels import gfd
from tests.operator.placement.nodes import A100, GB200, H100, L4, node, pod

FEW = [bundled()[name] for name in ("h100-sxm", "a100-sxm4-80gb", "l4", "l40s", "gb200", "h200-sxm", "tpu-v5e")]


def inventory(*nodes: NodeFacts) -> Inventory:
    made = Inventory(FEW)
    for one in nodes:
        made.put_node(one)
    return made


def changed(name: str, **fields: Any) -> Any:
    """A bundled class with other fields."""
    return parse_hardware_class(manifest(name, {**entries()[name], **fields}))


def test_pods_take_devices_and_give_them_back() -> None:
    cluster = inventory(node("a"), node("b"))
    cluster.put_pod(pod("x/1", "a", 3))
    cluster.put_pod(pod("x/2", "a", 2))
    h100 = cluster.capacity("h100-sxm")
    assert (h100.nodes, h100.devices, h100.free, h100.free_nodes) == (2, 16, 11, ((8, 1), (3, 1)))
    cluster.remove_pod("x/1")
    cluster.remove_pod("x/1")
    assert cluster.capacity("h100-sxm").free_nodes == ((8, 1), (6, 1))


def test_fragmentation_says_how_many_replicas_fit_and_what_is_stranded() -> None:
    cluster = inventory(*(node(f"n{i}") for i in range(6)))
    for i, held in enumerate((0, 0, 0, 3, 5, 5)):
        cluster.put_pod(pod(f"x/{i}", f"n{i}", held))
    h100 = cluster.capacity("h100-sxm")
    assert str(h100.fragmentation(8)) == "3 replicas of 8 would fit; 11 devices stranded"
    assert str(h100.fragmentation(5)) == "4 replicas of 5 would fit; 15 devices stranded"
    assert h100.stranded == 11


def test_a_small_node_that_is_all_free_strands_nothing() -> None:
    cluster = inventory(node("big", L4, 8), node("small", L4, 1))
    l4 = cluster.capacity("l4")
    assert (l4.free, l4.stranded, l4.largest_node) == (9, 0, 8)
    assert str(l4.fragmentation(8)) == "1 replica of 8 would fit; 1 device stranded"


def test_kaito_takes_the_first_node_for_all_here_every_node_counts_as_what_it_is() -> None:
    cluster = inventory(node("a", L4, 1), node("b", H100, 8), node("c", L4, 4), node("d", A100, 8), node("e", H100, 4))
    found = {name: one.free_nodes for name, one in cluster.capacities().items() if one.nodes}
    assert found == {"l4": ((4, 1), (1, 1)), "h100-sxm": ((8, 1), (4, 1)), "a100-sxm4-80gb": ((8, 1),)}


def test_cordoned_drained_and_unready_nodes_count_but_offer_nothing() -> None:
    cluster = inventory(
        node("a"),
        node("b", cordoned=True),
        node("c", ready=False, taints=["node.kubernetes.io/not-ready==NoExecute"]),
        node("d", taints=["karpenter.sh/disrupted==NoSchedule"]),
    )
    h100 = cluster.capacity("h100-sxm")
    assert (h100.nodes, h100.devices, h100.free) == (4, 32, 8)
    assert (h100.cordoned_nodes, h100.unready_nodes) == (2, 1)
    cluster.put_node(node("b"))
    assert cluster.capacity("h100-sxm").free == 16


def test_a_relabelled_node_moves_to_its_new_class() -> None:
    cluster = inventory(node("a"))
    cluster.put_pod(pod("x/1", "a", 2))
    cluster.put_node(node("a", A100))
    assert cluster.capacity("h100-sxm").nodes == 0
    assert cluster.capacity("a100-sxm4-80gb").free == 6


def test_a_heartbeat_changes_nothing() -> None:
    cluster = inventory(node("a"))
    version = cluster.version
    cluster.put_node(node("a", {**H100, "something/else": "changed"}))
    assert cluster.version == version


def test_pods_may_come_before_their_node_and_go_after_it() -> None:
    cluster = inventory()
    cluster.put_pod(pod("x/1", "a", 3))
    assert cluster.capacity("h100-sxm").free == 0
    cluster.put_node(node("a"))
    assert cluster.capacity("h100-sxm").free == 5
    cluster.remove_node("a")
    assert cluster.capacity("h100-sxm") == ClassCapacity(name="h100-sxm")
    cluster.remove_pod("x/1")
    cluster.put_node(node("a"))
    assert cluster.capacity("h100-sxm").free == 8


def test_a_pod_without_devices_is_nothing_to_us() -> None:
    cluster = inventory(node("a"))
    cluster.put_pod(PodFacts(key="x/1", node="a", devices={"cpu": 4}))
    assert cluster.pod_keys() == set()


def test_nodes_differ_by_zone_clique_taint_and_architecture_and_can_be_told_apart() -> None:
    cluster = inventory(
        node("a", {**GB200, "nvidia.com/gpu.clique": "u.1", "topology.kubernetes.io/zone": "z1"}, 4),
        node("b", {**GB200, "nvidia.com/gpu.clique": "u.1", "topology.kubernetes.io/zone": "z1"}, 4),
        node("c", {**GB200, "nvidia.com/gpu.clique": "u.2", "topology.kubernetes.io/zone": "z2"}, 4),
        node(
            "d",
            {**GB200, "nvidia.com/gpu.clique": "u.2"},
            4,
            taints=["team=blue=NoSchedule", "nvidia.com/gpu==NoSchedule"],
        ),
        node("e", {**GB200, "nvidia.com/gpu.clique": "u.2"}, 4, taints=["spot==PreferNoSchedule"]),
    )
    gb200 = cluster.capacity("gb200")
    assert gb200.architectures == ("arm64",)
    assert gb200.only(lambda group: group.domain == "u.1").free == 8
    assert gb200.only(lambda group: group.zone == "z2").free == 4
    assert gb200.only(lambda group: not group.taints).free == 16
    assert {taint for group in gb200.groups for taint in group.taints} == {Taint("team", "blue", "NoSchedule")}


def test_a_tpu_slice_over_several_nodes_is_one_domain_and_a_single_node_is_its_own() -> None:
    def tpu(topology: str) -> dict[str, str]:
        return {
            "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
            "cloud.google.com/gke-tpu-topology": topology,
            "cloud.google.com/gke-nodepool": "pool",
        }

    cluster = inventory(
        node("a", tpu("4x4"), 4, resource="google.com/tpu"), node("b", tpu("2x2"), 4, resource="google.com/tpu")
    )
    assert {group.domain for group in cluster.capacity("tpu-v5e").groups} == {"pool", ""}


def test_the_memory_that_nodes_tell_is_known_and_the_least_counts() -> None:
    cluster = inventory(node("a"), node("b", {**H100, "nvidia.com/gpu.memory": "81000"}))
    assert cluster.capacity("h100-sxm").memory_bytes == 81000 * 2**20


def test_nodes_that_an_autoscaler_may_add_count_when_the_class_allows_it() -> None:
    cluster = inventory()
    assert cluster.capacity("l40s").largest_replica == 0
    cluster.set_classes([changed("l40s", autoscaling={"maxNodes": 3}), bundled()["h100-sxm"]])
    l40s = cluster.capacity("l40s")
    assert (l40s.creatable_nodes, l40s.creatable_devices, l40s.largest_replica, l40s.free) == (3, 8, 8, 0)
    assert cluster.capacity("h100-sxm").largest_replica == 0


def test_a_deployment_that_is_planned_anew_may_use_what_its_own_pods_hold() -> None:
    cluster = inventory(node("a"), node("b"), node("c", cordoned=True))
    for key, where, devices, owner in (
        ("x/1", "a", 4, "x/chat"), ("x/2", "a", 4, "x/chat"), ("x/3", "b", 4, "x/other"), ("x/4", "c", 2, "x/chat"),
    ):  # fmt: skip
        cluster.put_pod(pod(key, where, devices, owner))
    assert cluster.capacity("h100-sxm").free_nodes == ((4, 1), (0, 1))
    mine = cluster.capacity("h100-sxm", without="x/chat")
    assert mine.free_nodes == ((8, 1), (4, 1))
    assert mine.stranded == 4
    assert cluster.used_by("x/chat") == {"h100-sxm": 10}
    assert cluster.capacity("h100-sxm", without="x/nobody") == cluster.capacity("h100-sxm")


def test_unknown_devices_are_reported_by_name_once_with_a_template() -> None:
    h20 = gfd("NVIDIA-H20", 97871, "9.0", "hopper")
    cluster = inventory(node("a", h20), node("b", h20), node("c"), node("d", {**H100, "nvidia.com/gpu.replicas": "2"}))
    shared, unknown = cluster.strangers()
    assert (unknown.product, unknown.nodes, unknown.devices, unknown.example) == ("NVIDIA-H20", 2, 16, "a")
    assert "kind: HardwareClass" in unknown.template
    assert (shared.verdict, shared.nodes) == ("Shared", 1)
    cluster.remove_node("a")
    cluster.put_node(node("b"))
    assert [one.verdict for one in cluster.strangers()] == ["Shared"]


def test_a_new_class_recognises_nodes_that_were_strangers() -> None:
    cluster = inventory(node("a", gfd("NVIDIA-H20", 97871, "9.0", "hopper")))
    fields = {"match": [{"label": "nvidia.com/gpu.product", "values": ["NVIDIA-H20"]}], "memory": "97871Mi"}
    assert not cluster.set_classes([changed("h200-sxm", **fields)])
    assert cluster.strangers() == []
    assert cluster.capacity("h200-sxm").free == 8


def test_a_class_that_asks_for_labels_or_resources_nobody_kept_says_so() -> None:
    cluster = inventory(node("a", {"team/device": "npu"}, resource="example.com/npu"))
    npu = changed("h100-sxm", match=[{"label": "team/device", "values": ["npu"]}], resourceName="example.com/npu")
    assert cluster.set_classes([npu])
    cluster.put_node(node("a", {"team/device": "npu"}, resource="example.com/npu"))
    assert cluster.capacity("h100-sxm").free == 8
    assert not cluster.set_classes([npu])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["node", "no-node", "pod", "no-pod", "classes"]),
        st.integers(0, 3),
        st.sampled_from([H100, A100, L4, {}]),
        st.integers(0, 8),
        st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_happened_the_sums_are_those_of_counting_afresh(steps: list[Any]) -> None:
    cluster = inventory()
    nodes: dict[str, NodeFacts] = {}
    pods: dict[str, PodFacts] = {}
    for what, number, labels, devices, cordoned in steps:
        name = f"n{number}"
        if what == "node":
            nodes[name] = node(name, labels, devices, cordoned=cordoned)
            cluster.put_node(nodes[name])
        elif what == "no-node":
            nodes.pop(name, None)
            cluster.remove_node(name)
        elif what == "pod":
            pods[f"x/{devices}"] = pod(f"x/{devices}", name, devices, owner="x/chat" if cordoned else "")
            cluster.put_pod(pods[f"x/{devices}"])
        elif what == "no-pod":
            pods.pop(f"x/{devices}", None)
            cluster.remove_pod(f"x/{devices}")
        else:
            cluster.set_classes(FEW)
    fresh = inventory(*nodes.values())
    for one in pods.values():
        fresh.put_pod(one)
    assert cluster.capacities() == fresh.capacities()
    assert cluster.strangers() == fresh.strangers()
    assert cluster.node_names() == fresh.node_names()
    without = inventory(*nodes.values())
    for one in pods.values():
        if not one.owner:
            without.put_pod(one)
    assert cluster.capacities(without="x/chat") == without.capacities()


def test_ten_thousand_nodes_with_eighty_thousand_pods_take_less_than_100_mb() -> None:
    cluster = inventory()
    tracemalloc.start()
    try:
        for i in range(500):
            more = {f"other.example/{k}": f"{i}-{k}" for k in range(30)}
            cluster.put_node(
                node(f"node-{i:05}.example.internal", {**H100, "nvidia.com/gpu.clique": f"u.{i // 18}", **more})
            )
            for k in range(8):
                cluster.put_pod(
                    pod(f"team-{i % 50}/chat-decode-{i:05}-{k}", f"node-{i:05}.example.internal", 1, "team/chat")
                )
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken * 20 < 100e6, f"{taken / 1e6:.1f} MB for 500 nodes"
    started = time.perf_counter()
    assert cluster.capacity("h100-sxm").free == 0
    cluster.remove_pod("team-0/chat-decode-00000-0")
    assert cluster.capacity("h100-sxm").free == 1
    assert time.perf_counter() - started < 1, "one change costs one node, not all"
