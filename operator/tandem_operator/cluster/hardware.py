"""Keeps the inventory: hardware classes, nodes and pods as they come; tells status, metrics and whoever plans by it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from tandem_operator.api.hardware_class import KIND, HardwareClass, parse_hardware_class
from tandem_operator.cluster.feed import Feed, Source, follow
from tandem_operator.cluster.objects import ClassObject, Node, Pod, class_body, node_facts, pod_facts, pod_key
from tandem_operator.config import InventorySettings
from tandem_operator.placement.catalogue import hardware_of
from tandem_operator.placement.inventory import Inventory
from tandem_operator.reconcile.catalogue import Store, install, read_catalogue
from tandem_operator.reconcile.errors import ApiError
from tandem_operator.reconcile.hardware import HardwareReporter
from tandem_operator.reconcile.world import Object

BOUND_PODS: Final = {"fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"}
"""A pod that ends leaves the selection, which the watch tells as its deletion."""

log = logging.getLogger(__name__)


class Client(Source, Store, Protocol):
    """What is needed of the client."""


class _Classes:
    """HardwareClass objects as they are in the cluster; what of them can be read."""

    def __init__(self) -> None:
        self.bodies: dict[str, Object] = {}
        self.problems: dict[str, str] = {}
        self.changed = asyncio.Event()

    def put(self, body: Object) -> None:
        name = body["metadata"]["name"]
        old = self.bodies.get(name)
        self.bodies[name] = body
        if old is None or old.get("spec") != body.get("spec"):
            self.changed.set()

    def copy(self) -> dict[str, Object]:
        """As of now: while somebody waits for the API server, more come."""
        return dict(self.bodies)

    def remove(self, name: str) -> None:
        if self.bodies.pop(name, None):
            self.problems.pop(name, None)
            self.changed.set()

    def keep_only(self, names: set[str]) -> None:
        for name in self.bodies.keys() - names:
            self.remove(name)

    def read(self) -> list[HardwareClass]:
        """Those that make sense; why the others do not is kept."""
        readable = []
        self.problems.clear()
        for name, body in self.bodies.items():
            try:
                found = parse_hardware_class(body)
                hardware_of(found)
                readable.append(found)
            except ValueError as error:
                self.problems[name] = str(error)
        return readable


class HardwareWatch:
    """`run` until cancelled. `inventory` is then good to plan by once `ready` is set."""

    def __init__(
        self,
        client: Client,
        inventory: Inventory,
        reporter: HardwareReporter,
        settings: InventorySettings,
        namespaces: tuple[str, ...] = (),
        on_change: Callable[[], None] = lambda: None,
        leads: asyncio.Event | None = None,
    ) -> None:
        """`namespaces`: where pods may be seen; empty: everywhere. `on_change`: nodes came, went or changed,
        or classes did; that pods took or left devices is no reason to plan anew. `leads`: nothing is written before
        it is set; a standby only reads, to answer at admission and to know everything when it takes over."""
        self._client = client
        self._inventory = inventory
        self._reporter = reporter
        self._settings = settings
        self._namespaces = namespaces
        self._on_change = on_change
        self._leads = leads
        self._classes = _Classes()
        self.ready = asyncio.Event()
        """Set while all that classes ask for was listed: nodes, their labels, and pods."""

    async def keep(self) -> None:
        """`run`, again after whatever ends it: what is known of hardware must not cost the operator its life."""
        while True:
            try:
                await self.run()
            except Exception as error:
                again = self._settings.retry_limit_seconds
                log.error("the inventory failed, again in %.0f s: %r", again, error, exc_info=error)
            await asyncio.sleep(self._settings.retry_limit_seconds)

    async def run(self) -> None:
        feed = Feed(
            kind=KIND,
            type=ClassObject,
            put=lambda item: self._classes.put(class_body(item)),
            remove=lambda item: self._classes.remove(item.metadata.name),
            listed=self._classes.keep_only,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(self._client, feed, self._settings))
            await feed.synced.wait()
            group.create_task(self._follow_classes())
            group.create_task(self._tell_changes())
            if self._leads:
                await self._leads.wait()
            group.create_task(self._install())
            group.create_task(self._report())

    async def _install(self) -> None:
        """Once; what fails is tried again until it is done."""
        if not self._settings.hardware_classes_file:
            return
        try:
            catalogue = read_catalogue(self._settings.hardware_classes_file)
        except Exception as error:  # classes that are there already are good without it
            log.error("no hardware class is installed: %s", error, exc_info=error)
            return
        while True:
            try:
                await install(self._client, catalogue, self._classes.copy())
            except ApiError as error:
                again = self._settings.retry_limit_seconds
                log.warning("not all hardware classes are installed, again in %.0f s: %s", again, error)
                await asyncio.sleep(again)
            else:
                return

    async def _follow_classes(self) -> None:
        """Nodes and pods are followed anew when classes ask for labels or resources that were not kept so far."""
        following: asyncio.Task[None] | None = None
        try:
            while True:
                self._classes.changed.clear()
                if self._inventory.set_classes(self._classes.read()) or following is None:
                    self.ready.clear()  # nodes whose labels were not kept look as if they were gone
                    await _cancelled(following)
                    following = asyncio.create_task(self._follow_fleet())
                change = asyncio.create_task(self._classes.changed.wait())
                await asyncio.wait([change, following], return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
                if following.done():
                    following.result()
                await asyncio.sleep(self._settings.settle_seconds)  # classes mostly come many at a time
        finally:
            await _cancelled(following)

    async def _follow_fleet(self) -> None:
        nodes = Feed(
            kind="Node",
            type=Node,
            put=lambda item: self._inventory.put_node(node_facts(item)),
            remove=lambda item: self._inventory.remove_node(item.metadata.name),
            listed=self._keep_nodes,
        )
        feeds: list[Feed[Any]] = [nodes, *map(self._pods, self._namespaces or (None,))]
        async with asyncio.TaskGroup() as group:
            for feed in feeds:
                group.create_task(follow(self._client, feed, self._settings))
            for feed in feeds:
                await feed.synced.wait()
            self.ready.set()

    def _pods(self, namespace: str | None) -> Feed[Pod]:
        def listed(names: set[str]) -> None:
            for key in self._inventory.pod_keys() - names:
                if namespace in (None, key.split("/")[0]):
                    self._inventory.remove_pod(key)

        return Feed(
            kind="Pod",
            type=Pod,
            put=self._put_pod,
            remove=lambda item: self._inventory.remove_pod(pod_key(item)),
            listed=listed,
            namespace=namespace,
            query=BOUND_PODS,
        )

    def _put_pod(self, item: Pod) -> None:
        held = pod_facts(item)
        if held:
            self._inventory.put_pod(held)
        else:
            self._inventory.remove_pod(pod_key(item))

    def _keep_nodes(self, names: set[str]) -> None:
        for name in self._inventory.node_names() - names:
            self._inventory.remove_node(name)

    async def _tell_changes(self) -> None:
        seen = -1
        while True:
            await self.ready.wait()
            if seen != self._inventory.nodes_version:
                seen = self._inventory.nodes_version
                self._on_change()
            await asyncio.sleep(self._settings.settle_seconds)

    async def _report(self) -> None:
        while True:
            await self.ready.wait()
            try:
                await self._reporter.report(self._classes.copy(), self._classes.problems)
                await self._reporter.tell_strangers(self._settings.nudge_seconds)
            except ApiError as error:
                log.warning("status of hardware classes is not written: %s", error)
            await asyncio.sleep(self._settings.report_seconds)


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    """Not `await task`: its end by cancellation would look like our own, and ours must not be lost."""
    if task:
        task.cancel()
        await asyncio.wait([task])
