"""What the cluster has, kept up to date one node or pod at a time. Plain values in; per class a ClassCapacity out.

An update costs the node's own labels and devices; nothing is scanned. Nodes are never taken for one another: pools of
different sizes and classes, half-empty nodes and cordoned ones are the normal case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from sys import intern
from typing import Any

import msgspec

from tandem_operator.api.hardware_class import HardwareClass
from tandem_operator.placement.capacity import ClassCapacity
from tandem_operator.placement.facts import NodeFacts, PodFacts, Stranger, hard_taints
from tandem_operator.placement.recognition import Recognition, Recognizer
from tandem_operator.placement.tally import Share, Tally, share_of
from tandem_operator.placement.template import template


class _Node:
    __slots__ = ("answers", "facts", "free", "shares", "used")

    def __init__(self) -> None:
        self.facts: NodeFacts | None = None
        self.answers: tuple[Recognition, ...] = ()
        self.shares: tuple[Share, ...] = ()
        self.free: tuple[int, ...] = ()
        self.used: dict[str, int] = {}


class Inventory:
    """Nodes and pods may come in any order, any number of times."""

    def __init__(self, classes: Iterable[HardwareClass] = ()) -> None:
        self._recognizer = Recognizer(classes)
        self._nodes: dict[str, _Node] = {}
        self._pods: dict[str, PodFacts] = {}
        self._owned: dict[str, set[str]] = {}
        self._tallies: dict[str, Tally] = {}
        self._answers: dict[tuple[int, int], tuple[Recognition, ...]] = {}
        """By identity of shared labels and devices: nodes that say the same are the same."""
        self._shared: dict[tuple[tuple[str, str | int], ...], dict[str, Any]] = {}
        self._strangers: dict[tuple[str, str, str], set[str]] = {}
        self._capacities: dict[str, ClassCapacity] = {}
        self.version = 0
        """Grows with every change that a capacity or a stranger shows."""
        self.nodes_version = 0
        """Grows with every change of nodes with devices and of classes, not with pods."""

    @property
    def classes(self) -> Mapping[str, HardwareClass]:
        """By name."""
        return self._recognizer.classes

    @property
    def rivals(self) -> Mapping[str, str]:
        """Classes that another one goes before though both claim the same value of a label, and which."""
        return self._recognizer.rivals

    @property
    def labels(self) -> frozenset[str]:
        """Keys of node labels that are kept."""
        return self._recognizer.labels

    def set_classes(self, classes: Iterable[HardwareClass]) -> bool:
        """Recognises all nodes anew. True: the classes ask for labels or resources that were not kept, so that all
        nodes and pods must be put again."""
        before = self._recognizer
        self._recognizer = Recognizer(classes)
        for node in self._nodes.values():
            self._retract(node)
        self._capacities.clear()
        self._answers.clear()
        for node in self._nodes.values():
            self._enter(node)
        self._changed()
        return not (self.labels <= before.labels and self._recognizer.resources <= before.resources)

    def put_node(self, found: NodeFacts) -> None:
        """A node that came or changed."""
        small = msgspec.structs.replace(
            found,
            labels=self._share((key, value) for key, value in found.labels.items() if key in self.labels),
            devices=self._devices(found.devices),
            taints=hard_taints(found.taints),
        )
        node = self._nodes.setdefault(found.name, _Node())
        if node.facts == small:
            return
        self._retract(node)
        node.facts = small
        self._enter(node)

    def remove_node(self, name: str) -> None:
        """A node that went; its pods may still be told to go later."""
        node = self._nodes.get(name)
        if node is None:
            return
        self._retract(node)
        node.facts = None
        if not node.used:
            del self._nodes[name]

    def put_pod(self, found: PodFacts) -> None:
        """A pod that was bound. One that holds no device is nothing to us."""
        devices = self._devices(found.devices)
        old = self._pods.get(found.key)
        new = msgspec.structs.replace(found, devices=devices, node=intern(found.node), owner=intern(found.owner))
        if old == new:
            return
        if old:
            self.remove_pod(found.key)
        if devices and found.node:
            self._pods[found.key] = new
            self._hold(new, +1)
            if new.owner:
                self._owned.setdefault(new.owner, set()).add(new.key)

    def remove_pod(self, key: str) -> None:
        """A pod that ended or was deleted."""
        pod = self._pods.pop(key, None)
        if pod is None:
            return
        if pod.owner:
            self._owned[pod.owner].discard(key)
            if not self._owned[pod.owner]:
                del self._owned[pod.owner]
        self._hold(pod, -1)
        node = self._nodes[pod.node]
        if node.facts is None and not node.used:
            del self._nodes[pod.node]

    def node_names(self) -> set[str]:
        """Of nodes that are there."""
        return {name for name, node in self._nodes.items() if node.facts}

    def pod_keys(self) -> set[str]:
        """Of pods that hold devices."""
        return set(self._pods)

    def capacity(self, name: str, without: str = "") -> ClassCapacity:
        """What a class offers; with `without` as if the pods of that owner were not there: for planning them anew."""
        if without in self._owned:
            return self._without(name, without)
        if name not in self._capacities:
            self._capacities[name] = self._tallies.get(name, Tally()).capacity(name, self.classes.get(name))
        return self._capacities[name]

    def capacities(self, without: str = "") -> dict[str, ClassCapacity]:
        """Of all classes, those without a node included."""
        return {name: self.capacity(name, without) for name in self.classes}

    def used_by(self, owner: str) -> dict[str, int]:
        """Devices that the pods of an owner hold, by class."""
        used: Counter[str] = Counter()
        for key in self._owned.get(owner, ()):
            pod = self._pods[key]
            for share in self._nodes[pod.node].shares:
                used[share.name] += pod.devices.get(share.resource, 0)
        return dict(+used)

    def strangers(self) -> list[Stranger]:
        """Devices that no class claims, sorted by how they are named."""
        found = []
        for (product, resource, verdict), names in sorted(self._strangers.items()):
            example = min(names)
            node = self._nodes[example]
            answer = next(
                one for one in node.answers if (one.product, one.resource, one.verdict) == (product, resource, verdict)
            )
            found.append(
                Stranger(
                    product=product,
                    resource=resource,
                    verdict=verdict,
                    hardware_class=answer.hardware_class,
                    reason=answer.reason,
                    nodes=len(names),
                    devices=sum(
                        one.devices for name in names for one in self._nodes[name].answers if one.resource == resource
                    ),
                    example=example,
                    template=template(node.facts.labels if node.facts else {}, resource, answer.devices),
                )
            )
        return found

    def _devices(self, resources: Mapping[str, int]) -> dict[str, int]:
        return self._share(
            (name, count) for name, count in resources.items() if count > 0 and self._recognizer.is_device(name)
        )

    def _share(self, items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """One dict for all nodes, or pods, that say the same: there are few kinds of either."""
        key = tuple(sorted(items))
        return self._shared.setdefault(key, dict(key))

    def _enter(self, node: _Node) -> None:
        """Recognises a node and adds it to the sums."""
        told = node.facts
        if told is None:
            return
        says = (id(told.labels), id(told.devices))
        if says not in self._answers:
            self._answers[says] = self._recognizer.recognize(told.labels, told.devices)
        node.answers = self._answers[says]
        shares = []
        for answer in node.answers:
            if answer.recognized:
                shares.append(share_of(told, answer))
            else:
                self._strangers.setdefault((answer.product, answer.resource, answer.verdict), set()).add(told.name)
        node.shares = tuple(shares)
        node.free = tuple(_free(node, share) for share in shares)
        for share, free in zip(shares, node.free, strict=True):
            self._count(share, free, +1)
        self._changed_by(node)

    def _retract(self, node: _Node) -> None:
        """The opposite of `_enter`."""
        told = node.facts
        if told is None:
            return
        for answer in node.answers:
            key = (answer.product, answer.resource, answer.verdict)
            if not answer.recognized:
                self._strangers[key].discard(told.name)
                if not self._strangers[key]:
                    del self._strangers[key]
        for share, free in zip(node.shares, node.free, strict=True):
            self._count(share, free, -1)
        self._changed_by(node)
        node.answers = node.shares = node.free = ()

    def _changed_by(self, node: _Node) -> None:
        """Most nodes of many clusters have no devices: no plan hangs on them."""
        if node.answers:
            self._changed()

    def _changed(self) -> None:
        self.version += 1
        self.nodes_version += 1

    def _count(self, share: Share, free: int, sign: int) -> None:
        tally = self._tallies.setdefault(share.name, Tally())
        tally.add(share, free, sign)
        self._capacities.pop(share.name, None)
        if not tally.nodes:
            del self._tallies[share.name]

    def _hold(self, pod: PodFacts, sign: int) -> None:
        """A pod takes or gives back its devices."""
        node = self._nodes.setdefault(pod.node, _Node())
        for resource, count in pod.devices.items():
            node.used[resource] = node.used.get(resource, 0) + sign * count
            if not node.used[resource]:
                del node.used[resource]
        after = tuple(_free(node, share) for share in node.shares)
        for share, old, new in zip(node.shares, node.free, after, strict=True):
            if old != new:
                self._tallies[share.name].move(share, old, new)
                self._capacities.pop(share.name, None)
                self.version += 1
        node.free = after

    def _without(self, name: str, owner: str) -> ClassCapacity:
        """Costs the owner's pods."""
        more: Counter[str] = Counter()
        tally = self._tallies.get(name, Tally()).copy()
        for key in self._owned[owner]:
            pod = self._pods[key]
            for share in self._nodes[pod.node].shares:
                if share.name == name:
                    more[pod.node] += pod.devices.get(share.resource, 0)
        for node_name, devices in more.items():
            node = self._nodes[node_name]
            for share, free in zip(node.shares, node.free, strict=True):
                if share.name == name:
                    tally.move(share, free, _free(node, share, returned=devices))
        return tally.capacity(name, self.classes.get(name))


def _free(node: _Node, share: Share, returned: int = 0) -> int:
    """Not below 0: a device that failed is still held by its pod, yet no longer allocatable."""
    return max(share.devices - node.used.get(share.resource, 0) + returned, 0)
