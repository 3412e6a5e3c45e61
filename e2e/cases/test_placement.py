"""Placement against a real scheduler: 300 nodes of 8 hardware classes, 60 deployments, and nodes that change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from e2e.cases import fleet as plans
from e2e.cases.fleet import KINDS, SMALL, Json, class_of, deployment, devices_of, role_of, slo
from e2e.cluster.kwok import FakeNodes
from e2e.node_labels import gfd
from e2e.stack import Stack, wait_until

POOLS = ("prefill", "decode")
H100 = next(kind for kind in KINDS if kind.hardware_class == "h100-sxm")
A100 = next(kind for kind in KINDS if kind.hardware_class == "a100-sxm4-80gb")
H200 = next(kind for kind in KINDS if kind.hardware_class == "h200-sxm")
ABSENT = plans.Kind("b300-sxm", 1, 8, gfd("NVIDIA-B300-SXM6-AC", 275040, "10.3", "blackwell"))


@dataclass(frozen=True)
class Fleet:
    """The nodes, and the namespace with the deployments."""

    stack: Stack
    nodes: FakeNodes
    namespace: str

    def deployments(self) -> dict[str, Json]:
        items = self.stack.get("infd", namespace=self.namespace)["items"]
        return {item["metadata"]["name"]: item for item in items}

    def pods(self) -> list[Json]:
        """Those that are not on their way out."""
        items = self.stack.get("pods", namespace=self.namespace)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def hardware_class(self, name: str) -> Json:
        status: Json = self.stack.get("hardwareclass", name).get("status", {})
        return status

    def apply(self, *bodies: Json) -> None:
        self.stack.apply(plans.as_list(list(bodies)), self.namespace)

    def settled(self, *names: str) -> bool:
        """Whether those deployments are Ready (all without names)."""
        found = self.deployments()
        return all(condition(found[name], "Ready").get("status") == "True" for name in names or found)


@pytest.fixture(scope="module")
def fleet(stack: Stack, shared_namespace: str) -> Iterator[Fleet]:
    """Everything is there and runs."""
    with FakeNodes(stack.cluster) as nodes:
        made = Fleet(stack, nodes, shared_namespace)
        nodes.add(plans.nodes())
        wait_until("all nodes are recognised", 120, lambda: not unrecognised(made), 1.0)
        made.apply(*plans.deployments())
        wait_until("all deployments are Ready", 900, made.settled, 3.0)
        yield made
        stack.cluster.kubectl("delete", "infd", "--all", "-n", shared_namespace)
        wait_until("no pod is left", 120, lambda: not stack.get("pods", namespace=shared_namespace)["items"], 1.0)


def unrecognised(fleet: Fleet) -> dict[str, int]:
    """By class, nodes that the operator has not counted yet."""
    items = fleet.stack.get("hardwareclass")["items"]
    counted = {item["metadata"]["name"]: item.get("status", {}).get("nodes", 0) for item in items}
    return {kind.hardware_class: kind.count for kind in KINDS if counted.get(kind.hardware_class) != kind.count}


def condition(body: Json, kind: str) -> Json:
    found = body.get("status", {}).get("conditions", [])
    return next((item for item in found if item["type"] == kind), {})


def owner_of(pod: Json) -> str:
    return str(pod["metadata"]["labels"]["tandem.dev/deployment"])


def uids(pods: list[Json]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def on_node(pods: list[Json], node: str) -> list[Json]:
    return [pod for pod in pods if pod["spec"].get("nodeName") == node]


def busiest(pods: list[Json], hardware_class: str) -> str:
    """The node of a class with the most pool pods."""
    counts = Counter(
        pod["spec"]["nodeName"]
        for pod in pods
        if role_of(pod) in POOLS and class_of(pod["spec"]["nodeName"]) == hardware_class
    )
    return str(counts.most_common(1)[0][0])


def test_every_pod_lands_on_a_class_that_its_plan_names(fleet: Fleet) -> None:
    found, wrong = fleet.deployments(), []
    assert len(found) == len(plans.deployments())
    used = Counter[str]()
    for pod in fleet.pods():
        role, node = role_of(pod), pod["spec"]["nodeName"]
        if role == "router":
            assert devices_of(pod) == {}
            continue
        plan = found[owner_of(pod)]["status"]["placement"][role]
        used[class_of(node)] += 1
        if class_of(node) not in plan["classes"] or devices_of(pod) != {plan["resource"]: plan["gpus"]}:
            wrong.append((pod["metadata"]["name"], node, plan["classes"], devices_of(pod)))
    assert wrong == []
    assert len(used) >= 4, f"a mixed fleet is used as one: {used}"
    assert "t4" not in used, "it holds none of the models, and its taint is not tolerated"
    for name, body in found.items():
        placed = condition(body, "Placed")
        assert placed["status"] == "True", (name, placed)
        assert body["status"]["placement"]["decode"]["why"], name


def test_what_the_user_named_is_what_was_taken(fleet: Fleet) -> None:
    for name, body in fleet.deployments().items():
        for role in POOLS:
            named = body["spec"][role].get("hardwareClasses")
            plan = body["status"]["placement"][role]
            assert not named or set(plan["classes"]) <= set(named), (name, role, plan)


def test_the_status_of_classes_counts_what_pods_hold(fleet: Fleet) -> None:
    def books() -> dict[str, tuple[int, int]]:
        held = Counter[str]()
        for pod in fleet.pods():
            held[class_of(pod["spec"]["nodeName"])] += sum(devices_of(pod).values())
        wanted = {
            kind.hardware_class: (kind.count * kind.devices, kind.count * kind.devices - held[kind.hardware_class])
            for kind in KINDS
        }
        status = {name: fleet.hardware_class(name) for name in wanted}
        return {name: pair for name, pair in wanted.items() if (status[name]["devices"], status[name]["free"]) != pair}

    wait_until("devices and free devices are told", 90, lambda: not books(), 1.0)


def test_what_finds_no_node_stays_pending_and_says_why_and_what_to_do(fleet: Fleet) -> None:
    later = {"hardwareClasses": [ABSENT.hardware_class], "replicas": 1}
    crowd = {"hardwareClasses": ["h200-sxm"], "gpus": 8, "replicas": 40}
    lax = slo("10s", "200ms")
    fleet.apply(
        deployment("later", SMALL, prefill=later, decode=later, slo=lax),
        deployment("crowd", SMALL, decode=crowd, slo=lax),
    )

    def explained() -> bool:
        found = fleet.deployments()
        first, second = (condition(found[name], "DecodeAvailable") for name in ("later", "crowd"))
        return "b300-sxm: 0 nodes" in first.get("message", "") and f"h200-sxm: {H200.count} nodes" in second.get(
            "message", ""
        )

    wait_until("the conditions tell the blocking fact", 60, explained)
    found = fleet.deployments()
    for name in ("later", "crowd"):
        told = condition(found[name], "DecodeAvailable")
        assert (told["status"], told["reason"]) == ("False", "WaitingForCapacity")
        assert "add such nodes" in told["message"]
        assert condition(found[name], "Placed")["status"] == "True"
    waiting = [pod for pod in fleet.pods() if pod["status"]["phase"] == "Pending"]
    assert {owner_of(pod) for pod in waiting} == {"later", "crowd"}
    fleet.nodes.add(ABSENT.nodes())
    wait_until("what waited for a node runs on it", 60, lambda: fleet.settled("later"))
    fleet.stack.cluster.kubectl("delete", "infd", "later", "crowd", "-n", fleet.namespace)
    wait_until("they are gone", 60, lambda: not {"later", "crowd"} & {owner_of(pod) for pod in fleet.pods()}, 1.0)
    fleet.nodes.remove(*(node.name for node in ABSENT.nodes()))


def test_cordoned_drained_relabelled_and_removed_nodes_move_only_the_pods_that_must_move(fleet: Fleet) -> None:
    cluster, before = fleet.stack.cluster, fleet.pods()
    node = busiest(before, "h100-sxm")
    cluster.kubectl("cordon", node)
    wait_until("the cordon is told", 90, lambda: "1 cordoned" in available(fleet, "h100-sxm"))
    spare = next(node.name for node in A100.nodes() if not on_node(before, node.name))
    cluster.kubectl("label", "node", spare, "nvidia.com/gpu.product=NVIDIA-A100-FROM-NOWHERE", "--overwrite")
    fewer = A100.count - 1
    wait_until("a relabelled node is no longer of its class", 90, lambda: counted(fleet, A100.hardware_class) == fewer)
    assert uids(fleet.pods()) == uids(before), "neither cordon nor label moves a pod"

    moved = on_node(before, node)
    cluster.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
    wait_until("the drained pods run elsewhere", 90, lambda: back(fleet, len(before)), 1.0)
    after = fleet.pods()
    assert on_node(after, node) == []
    assert uids(before) - uids(after) == uids(moved), "others were moved too"
    found = fleet.deployments()
    for pod in after:
        if role_of(pod) in POOLS:
            plan = found[owner_of(pod)]["status"]["placement"][role_of(pod)]
            assert class_of(pod["spec"]["nodeName"]) in plan["classes"]
    fleet.nodes.remove(node)
    wait_until("a removed node is no longer counted", 90, lambda: counted(fleet, "h100-sxm") == H100.count - 1)
    assert uids(fleet.pods()) == uids(after)


def back(fleet: Fleet, count: int) -> bool:
    """As many pods as there were, all of them on nodes, and every deployment Ready."""
    pods = fleet.pods()
    return len(pods) == count and all(pod["spec"].get("nodeName") for pod in pods) and fleet.settled()


def available(fleet: Fleet, hardware_class: str) -> str:
    """What the class says about its nodes."""
    conditions = fleet.hardware_class(hardware_class)["conditions"]
    return next(str(item["message"]) for item in conditions if item["type"] == "Available")


def counted(fleet: Fleet, hardware_class: str) -> int:
    return int(fleet.hardware_class(hardware_class)["nodes"])
