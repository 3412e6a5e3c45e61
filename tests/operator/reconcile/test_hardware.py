"""Status of a hardware class in words: what there is, what fits, what to do next; conditions keep their times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tandem_operator.api.hardware_class import parse_hardware_class
from tandem_operator.placement.catalogue import bundled, entries, manifest
from tandem_operator.placement.inventory import Inventory
from tandem_operator.reconcile.hardware import HardwareReporter, status_of
from tandem_operator.reconcile.world import Notice

from e2e.node_labels import gfd
from tests.operator.placement.nodes import GB200, H100, node, pod

EARLY, LATE = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC)


def status(
    inventory: Inventory, name: str, before: dict[str, Any] | None = None, now: datetime = EARLY
) -> dict[str, Any]:
    body = {**manifest(name, entries()[name]), "status": before or {}}
    return status_of(body, inventory.capacity(name), inventory.strangers(), "", now)


def message(inventory: Inventory, name: str) -> str:
    text: str = status(inventory, name)["conditions"][0]["message"]
    return text


def fleet(*nodes: Any) -> Inventory:
    made = Inventory(bundled().values())
    for one in nodes:
        made.put_node(one)
    return made


def test_the_sentence_counts_nodes_devices_and_what_would_fit() -> None:
    inventory = fleet(node("a"), node("b"), node("c", cordoned=True), node("d", ready=False))
    inventory.put_pod(pod("x/1", "a", 3))
    assert message(inventory, "h100-sxm") == (
        "4 nodes, 32 devices, 13 free; nodes 1 cordoned and 1 not ready; 1 replica of 8 would fit; 5 devices stranded"
    )


def test_a_single_node_is_one_node_and_foreign_hosts_are_named() -> None:
    said = message(fleet(node("a", GB200, 4)), "gb200")
    assert said.startswith("1 node, 4 devices, 4 free; 1 replica of 4 would fit")
    assert "arm64 hosts: images must be built for them" in said


def test_parts_of_devices_are_mentioned_and_do_not_count() -> None:
    said = message(fleet(node("a"), node("b", gfd("NVIDIA-H100-80GB-HBM3-SHARED", 81559, "9.0", "hopper"))), "h100-sxm")
    assert "1 node with parts that do not count (NVIDIA-H100-80GB-HBM3-SHARED)" in said


def test_a_condition_keeps_its_time_while_its_status_is_the_same() -> None:
    inventory = fleet(node("a"))
    first = status(inventory, "h100-sxm")
    inventory.put_pod(pod("x/1", "a", 3))
    second = status(inventory, "h100-sxm", first, LATE)
    assert second["conditions"][0]["message"] != first["conditions"][0]["message"]
    assert second["conditions"][0]["lastTransitionTime"] == "2030-01-01T00:00:00Z"
    inventory.remove_node("a")
    third = status(inventory, "h100-sxm", second, LATE)
    assert third["conditions"][0]["lastTransitionTime"] == "2030-01-02T00:00:00Z"


def test_a_class_whose_nodes_another_takes_says_which_and_what_to_do() -> None:
    copy = parse_hardware_class({**manifest("b-copy", entries()["h100-sxm"])})
    inventory = Inventory([copy, *bundled().values()])
    assert inventory.rivals.keys() == {"h100-sxm"}
    body = manifest("h100-sxm", entries()["h100-sxm"])
    rival = inventory.rivals["h100-sxm"]
    (_, said) = status_of(body, inventory.capacity("h100-sxm"), [], "", EARLY, rival)["conditions"]
    assert (said["status"], said["reason"]) == ("False", "ClaimedTwice")
    assert "is also claimed by class b-copy, which goes first" in said["message"]
    assert Inventory(bundled().values()).rivals == {}


class Ear:
    def __init__(self) -> None:
        self.heard: list[tuple[str, Notice]] = []

    async def notify(self, regarding: dict[str, Any], notice: Notice) -> None:
        self.heard.append((notice.reason, notice))


async def test_a_device_that_nobody_knows_is_told_when_it_stays_and_again_when_it_came_back() -> None:
    inventory, ear, time = fleet(), Ear(), [EARLY]
    reporter = HardwareReporter(ear, inventory, lambda: time[0])  # type: ignore[arg-type]
    h20 = gfd("NVIDIA-H20", 97871, "9.0", "hopper")
    inventory.put_node(node("a", h20))
    await reporter.tell_strangers(30)
    assert ear.heard == [], "labels and device plugins of a new node take a moment"
    time[0] = LATE
    for _ in range(2):
        await reporter.tell_strangers(30)
    assert [reason for reason, _ in ear.heard] == ["HardwareUnknown"]
    inventory.put_node(node("a", H100))
    await reporter.tell_strangers(30)
    inventory.put_node(node("b", h20))
    await reporter.tell_strangers(0)
    assert len(ear.heard) == 2
