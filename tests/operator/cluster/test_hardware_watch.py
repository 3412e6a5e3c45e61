"""Classes, nodes and pods from the API server into the inventory, and back as status and Events."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from tandem_operator.cluster.hardware import HardwareWatch
from tandem_operator.config import InventorySettings
from tandem_operator.placement.catalogue import entries, manifest
from tandem_operator.placement.inventory import Inventory
from tandem_operator.reconcile.errors import ApiError
from tandem_operator.reconcile.hardware import HardwareReporter
from tandem_operator.reconcile.world import Notice

from e2e.node_labels import gfd
from tests.operator.cluster.fake_source import FakeSource
from tests.operator.placement.nodes import H100


class FakeApi(FakeSource):
    """Also takes what the operator writes, and tells its watches."""

    def __init__(self) -> None:
        super().__init__()
        self.notices: list[tuple[str, Notice]] = []
        self.statuses = 0

    async def offer(self, body: dict[str, Any]) -> None:
        name = body["metadata"]["name"]
        old = self.objects["HardwareClass"].get(name, {"metadata": {"uid": f"uid-{name}"}})
        self.add("HardwareClass", {**old, **copy.deepcopy(body), "metadata": {**old["metadata"], **body["metadata"]}})

    async def apply_status(self, body: dict[str, Any]) -> None:
        self.statuses += 1
        old = self.objects["HardwareClass"][body["metadata"]["name"]]
        self.add("HardwareClass", {**old, "status": body["status"]})

    async def notify(self, regarding: dict[str, Any], notice: Notice) -> None:
        self.notices.append((regarding["metadata"]["name"], notice))

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.objects["HardwareClass"][name].get("status", {})
        return status


def node(name: str, labels: dict[str, str] = H100, devices: int = 8, **spec: Any) -> dict[str, Any]:
    ready = [{"type": "Ready", "status": "True"}]
    status = {"allocatable": {"nvidia.com/gpu": str(devices)}, "conditions": ready}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


def pod(name: str, on: str, devices: int) -> dict[str, Any]:
    containers = [{"resources": {"limits": {"nvidia.com/gpu": str(devices)}}}]
    metadata = {"name": name, "namespace": "x", "labels": {"tandem.dev/deployment": "chat"}}
    return {"metadata": metadata, "spec": {"nodeName": on, "containers": containers}}


def classed(name: str, **fields: Any) -> dict[str, Any]:
    body = manifest(name, {**entries()[name], **fields})
    return {**body, "metadata": {**body["metadata"], "generation": 3}}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(api: FakeApi, changes: list[int] | None = None, file: str = "") -> AsyncIterator[Inventory]:
    inventory = Inventory()
    reporter = HardwareReporter(api, inventory, lambda: datetime(2030, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]
    settings = InventorySettings(
        hardware_classes_file=file,
        settle_seconds=0.01,
        report_seconds=0.01,
        nudge_seconds=0,
        retry_limit_seconds=0.05,
    )
    told = changes if changes is not None else []
    watch = HardwareWatch(api, inventory, reporter, settings, (), lambda: told.append(inventory.nodes_version))  # type: ignore[arg-type]
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(10):
        await watch.ready.wait()
    yield inventory
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=10)
    assert done, "it ends when it is cancelled"


async def test_status_says_what_there_is_and_follows_what_happens() -> None:
    api = FakeApi()
    api.add("HardwareClass", classed("h100-sxm"))
    api.add("HardwareClass", classed("l4"))
    for name in "abc":
        api.add("Node", node(name))
    api.add("Pod", pod("p", "a", 3))
    async with running(api) as inventory:
        await until(lambda: api.status("h100-sxm").get("free") == 21)
        status = api.status("h100-sxm")
        assert (status["nodes"], status["devices"], status["stranded"], status["observedGeneration"]) == (3, 24, 5, 3)
        assert status["shapes"][-1] == {"devices": 8, "replicas": 2, "stranded": 5}
        found = {one["type"]: one for one in status["conditions"]}
        assert found["Available"]["reason"] == "NodesFound"
        assert "2 replicas of 8 would fit; 5 devices stranded" in found["Available"]["message"]
        none = api.status("l4")["conditions"][0]
        assert (none["status"], none["reason"]) == ("False", "NoNodes")
        assert "tandem.dev/hardware-class: l4" in none["message"]
        api.add("Pod", pod("q", "b", 8))
        api.add("Node", node("c", unschedulable=True))
        await until(lambda: api.status("h100-sxm").get("free") == 5)
        assert "nodes 1 cordoned" in api.status("h100-sxm")["conditions"][0]["message"]
        api.delete("Pod", "q")
        api.delete("Node", "a")
        await until(lambda: api.status("h100-sxm").get("free") == 8)
        assert inventory.used_by("x/chat") == {}
        written = api.statuses
        await asyncio.sleep(0.05)
        assert api.statuses == written, "a fleet at rest writes nothing"


async def test_planners_hear_of_nodes_and_classes_but_not_of_every_pod() -> None:
    api, changes = FakeApi(), list[int]()
    api.add("HardwareClass", classed("h100-sxm"))
    api.add("Node", node("a"))
    async with running(api, changes) as inventory:
        await until(lambda: len(changes) == 1)
        api.add("Pod", pod("p", "a", 3))
        await until(lambda: inventory.capacity("h100-sxm").free == 5)
        await asyncio.sleep(0.05)
        assert len(changes) == 1
        api.add("Node", node("a", unschedulable=True))
        await until(lambda: len(changes) == 2)


async def test_nodes_without_devices_are_nothing_to_planners() -> None:
    api, changes = FakeApi(), list[int]()
    api.add("HardwareClass", classed("h100-sxm"))
    async with running(api, changes) as inventory:
        await until(lambda: len(changes) == 1)
        api.add("Node", node("cpu", {}, devices=0))
        await until(lambda: inventory.node_names())
        api.add("Node", node("cpu", {}, devices=0, unschedulable=True))
        await asyncio.sleep(0.05)
        assert len(changes) == 1


async def test_while_a_class_changes_how_it_is_recognised_nobody_plans_by_nodes_that_seem_gone() -> None:
    api, changes, gate = FakeApi(), list[int](), asyncio.Event()
    api.add("HardwareClass", classed("h100-sxm"))
    api.add("Node", node("a", {**H100, "example.com/kind": "large"}))
    list_page = api.list_page

    async def list_nodes_late(kind: str, namespace: str | None, query: dict[str, str]) -> bytes:
        if kind == "Node":
            await gate.wait()
        return await list_page(kind, namespace, query)

    async with running(api, changes) as inventory:
        await until(lambda: len(changes) == 1)
        api.list_page = list_nodes_late  # type: ignore[method-assign]
        api.add("HardwareClass", classed("h100-sxm", match=[{"label": "example.com/kind", "values": ["large"]}]))
        await until(lambda: not inventory.capacity("h100-sxm").nodes)
        await asyncio.sleep(0.05)
        assert len(changes) == 1
        gate.set()
        await until(lambda: len(changes) > 1)
        assert inventory.capacity("h100-sxm").nodes == 1


async def test_a_list_of_classes_that_cannot_be_read_costs_no_inventory(tmp_path: Path) -> None:
    api, file = FakeApi(), tmp_path / "classes.yaml"
    file.write_text("items: [{spec: {}}]")
    api.add("HardwareClass", classed("h100-sxm"))
    api.add("Node", node("a"))
    async with running(api, file=str(file)) as inventory:
        await until(lambda: inventory.capacity("h100-sxm").nodes)
        await until(lambda: api.status("h100-sxm").get("nodes") == 1)


async def test_an_unknown_device_is_told_once_with_its_template_and_a_new_class_takes_it() -> None:
    api = FakeApi()
    api.add("HardwareClass", classed("h100-sxm"))
    api.add("Node", node("a", gfd("NVIDIA-H20", 97871, "9.0", "hopper")))
    api.add("Node", node("b", gfd("NVIDIA-H20", 97871, "9.0", "hopper")))
    async with running(api) as inventory:
        await until(lambda: api.notices)
        await asyncio.sleep(0.05)
        ((regarding, notice),) = api.notices
        assert (regarding, notice.reason) == ("a", "HardwareUnknown")
        assert "NVIDIA-H20" in notice.note
        assert len(notice.note) <= 1024
        filled = yaml.safe_load(notice.note.split("---\n")[1])
        api.add("HardwareClass", filled)
        await until(lambda: inventory.capacity("h20").free == 16)


async def test_a_class_that_cannot_be_read_says_so_and_disturbs_no_other() -> None:
    api = FakeApi()
    api.add("HardwareClass", classed("h100-sxm"))
    api.add("HardwareClass", classed("l4", memory="plenty"))
    api.add("Node", node("a"))
    async with running(api):
        await until(lambda: api.status("l4") and api.status("h100-sxm").get("free") == 8)
        condition = api.status("l4")["conditions"][0]
        assert (condition["status"], condition["reason"]) == ("False", "InvalidSpec")
        assert "spec.memory is 'plenty'; give a quantity" in condition["message"]


async def test_a_node_that_contradicts_its_class_is_named_in_the_status() -> None:
    api = FakeApi()
    api.add("HardwareClass", classed("h100-sxm"))
    api.add("Node", node("odd", {**H100, "nvidia.com/gpu.memory": "40000"}))
    async with running(api):
        await until(lambda: len(api.status("h100-sxm").get("conditions", [])) == 2)
        condition = api.status("h100-sxm")["conditions"][1]
        assert (condition["type"], condition["status"], condition["reason"]) == (
            "Consistent",
            "False",
            "NodesContradict",
        )
        assert "odd" in condition["message"]


async def test_a_class_that_asks_for_other_labels_has_nodes_and_pods_read_anew() -> None:
    api = FakeApi()
    api.add("Node", {**node("a", {"team/device": "npu"}), "status": {
        "allocatable": {"example.com/npu": "4"}, "conditions": [{"type": "Ready", "status": "True"}]}})  # fmt: skip
    async with running(api) as inventory:
        match = [{"label": "team/device", "values": ["npu"]}]
        api.add("HardwareClass", classed("l4", match=match, resourceName="example.com/npu"))
        await until(lambda: "l4" in inventory.classes and inventory.capacity("l4").free == 4)


async def test_the_catalogue_of_the_chart_is_installed_when_the_operator_starts(tmp_path: Path) -> None:
    api = FakeApi()
    api.add("Node", node("a"))
    items = [{key: classed(name)[key] for key in ("metadata", "spec")} for name in ("h100-sxm", "l4")]
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump({"installedBy": "s/t", "items": items}))
    async with running(api, file=str(tmp_path / "classes.yaml")) as inventory:
        await until(lambda: inventory.capacity("h100-sxm").free == 8)
        assert api.objects["HardwareClass"].keys() == {"h100-sxm", "l4"}


async def test_errors_of_the_api_server_are_survived() -> None:
    api = FakeApi()
    api.failures["Node"] = [ApiError(500, "not now")]
    api.add("HardwareClass", classed("h100-sxm"))
    api.add("Node", node("a"))
    async with running(api) as inventory:
        assert inventory.capacity("h100-sxm").free == 8
