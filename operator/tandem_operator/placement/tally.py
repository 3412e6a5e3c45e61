"""Sums over the nodes of one hardware class, kept by adding and taking away what one node contributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from tandem_operator.api.hardware_class import HardwareClass
from tandem_operator.placement import labels
from tandem_operator.placement.capacity import ClassCapacity, NodeGroup, Taint, histogram
from tandem_operator.placement.facts import NodeFacts
from tandem_operator.placement.recognition import Recognition


class Group(NamedTuple):
    """What nodes that take new pods may differ in."""

    zone: str
    domain: str
    architecture: str
    taints: tuple[Taint, ...]


class Share(NamedTuple):
    """What one node contributes to one class."""

    name: str
    resource: str
    devices: int
    cordoned: bool
    unready: bool
    memory: int
    """Bytes of one device as the node tells it; 0: it does not."""
    group: Group | None
    """None: takes no new pods."""


def share_of(told: NodeFacts, answer: Recognition) -> Share:
    """What a node contributes to the class that one of its resources was recognised as."""
    group = None
    if told.ready and not told.drains:
        group = Group(
            zone=told.labels.get(labels.ZONE, ""),
            domain=labels.domain(told.labels, answer.devices),
            architecture=told.labels.get(labels.ARCHITECTURE, "amd64"),
            taints=tuple(taint for taint in told.taints if taint.key != answer.resource),
        )
    return Share(
        name=answer.hardware_class,
        resource=answer.resource,
        devices=answer.devices,
        cordoned=told.drains,
        unready=not told.ready,
        memory=labels.memory(told.labels) or 0,
        group=group,
    )


class Tally:
    """Of one class. `add` and `remove` of the same values cancel each other."""

    __slots__ = ("_cordoned", "_devices", "_groups", "_memory", "_offered", "_sizes", "_unready", "_whole", "nodes")

    def __init__(self) -> None:
        self.nodes = self._devices = self._cordoned = self._unready = self._whole = self._offered = 0
        self._sizes: Counter[int] = Counter()
        self._memory: Counter[int] = Counter()
        self._groups: dict[Group, Counter[int]] = {}

    def add(self, share: Share, free: int, sign: int = +1) -> None:
        """A node of which `free` devices are free; with sign -1: it goes."""
        self.nodes += sign
        self._devices += sign * share.devices
        self._offered += sign * share.devices * (share.group is not None)
        self._cordoned += sign * share.cordoned
        self._unready += sign * share.unready
        count(self._sizes, share.devices, sign)
        if share.memory:
            count(self._memory, share.memory, sign)
        self._add_free(share, free, sign)

    def move(self, share: Share, before: int, after: int) -> None:
        """The count of free devices of a node changes."""
        self._add_free(share, before, -1)
        self._add_free(share, after, +1)

    def _add_free(self, share: Share, free: int, sign: int) -> None:
        if share.group is None:
            return
        nodes = self._groups.setdefault(share.group, Counter())
        count(nodes, free, sign)
        if not nodes:
            del self._groups[share.group]
        if free == share.devices:
            self._whole += sign * free

    def copy(self) -> Tally:
        """One that can be changed without this one."""
        other = Tally()
        other.nodes, other._devices, other._whole = self.nodes, self._devices, self._whole
        other._cordoned, other._unready, other._offered = self._cordoned, self._unready, self._offered
        other._sizes, other._memory = self._sizes.copy(), self._memory.copy()
        other._groups = {group: nodes.copy() for group, nodes in self._groups.items()}
        return other

    def capacity(self, name: str, source: HardwareClass | None) -> ClassCapacity:
        """As a value, with what a node autoscaler may add by the class's word."""
        autoscaling = source.spec.autoscaling if source else None
        capacity = ClassCapacity(
            name=name,
            nodes=self.nodes,
            devices=self._devices,
            offered=self._offered,
            cordoned_nodes=self._cordoned,
            unready_nodes=self._unready,
            largest_node=max(self._sizes, default=0),
            memory_bytes=min(self._memory, default=None),
            creatable_nodes=autoscaling.max_nodes if autoscaling else 0,
            creatable_devices=(source.spec.devices_per_node or 0) if source and autoscaling else 0,
            groups=tuple(_group(group, nodes) for group, nodes in sorted(self._groups.items())),
        )
        return msgspec.structs.replace(capacity, stranded=capacity.free - self._whole)


def _group(group: Group, nodes: Mapping[int, int]) -> NodeGroup:
    return NodeGroup(**group._asdict(), free=histogram(nodes.items()))


def count(counts: Counter[int], value: int, sign: int) -> None:
    """Adds or takes away one; what is 0 is not kept."""
    counts[value] += sign
    if not counts[value]:
        del counts[value]
