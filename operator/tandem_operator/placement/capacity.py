"""What a hardware class offers now, as a value: free devices node by node, since a replica needs one node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec


class Taint(msgspec.Struct, frozen=True, order=True):
    """A taint that keeps pods away. Those with the class's resource key are tolerated: left out."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


class NodeGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of one class that take new pods and do not differ in anything but how much of them is free."""

    zone: str = ""
    domain: str = ""
    """NVLink/IMEX clique or TPU slice that spans nodes; empty: the node is its own domain."""
    architecture: str = "amd64"
    taints: tuple[Taint, ...] = ()
    free: tuple[tuple[int, int], ...]
    """(free devices of a node, how many such nodes), the most free first."""

    @property
    def free_devices(self) -> int:
        """All free devices, whether or not they are on one node."""
        return sum(devices * nodes for devices, nodes in self.free)


class Fragmentation(msgspec.Struct, frozen=True):
    """How replicas of so many devices would fit into what is free."""

    devices: int
    """Of one replica."""
    replicas: int
    """That would fit now, each on one node."""
    stranded: int
    """Free devices that are then left over in pieces too small for one more."""

    def __str__(self) -> str:
        plural = "" if self.replicas == 1 else "s"
        left = "1 device" if self.stranded == 1 else f"{self.stranded} devices"
        return f"{self.replicas} replica{plural} of {self.devices} would fit; {left} stranded"


class ClassCapacity(msgspec.Struct, frozen=True, kw_only=True):
    """One class. Counts of nodes and devices are over all its nodes; `groups` are those that take new pods."""

    name: str
    nodes: int = 0
    devices: int = 0
    offered: int = 0
    """Devices on nodes that take new pods, free or not."""
    cordoned_nodes: int = 0
    """Cordoned or being drained: their pods stay, new ones do not come."""
    unready_nodes: int = 0
    largest_node: int = 0
    """Most devices that one node has, free or not; a replica that needs more fits none."""
    memory_bytes: int | None = None
    """Least memory of one device that the nodes' own labels tell; None: no label tells it. Goes before the class's."""
    creatable_nodes: int = 0
    """Nodes that a node autoscaler may add (the class says so)."""
    creatable_devices: int = 0
    """Of one such node."""
    stranded: int = 0
    """Free devices on nodes of which others are taken: no replica of a whole node fits there."""
    groups: tuple[NodeGroup, ...] = ()

    @property
    def free(self) -> int:
        """Free devices on nodes that take new pods."""
        return sum(group.free_devices for group in self.groups)

    @property
    def free_nodes(self) -> tuple[tuple[int, int], ...]:
        """(free devices of a node, how many such nodes) over all groups, the most free first."""
        merged: Counter[int] = Counter()
        for group in self.groups:
            for devices, nodes in group.free:
                merged[devices] += nodes
        return tuple(sorted(merged.items(), reverse=True))

    @property
    def architectures(self) -> tuple[str, ...]:
        """Of hosts that take new pods: images must be built for them (GH200 and GB200 are arm64)."""
        return tuple(sorted({group.architecture for group in self.groups}))

    @property
    def largest_replica(self) -> int:
        """Most devices that one replica can ever have on one node, those that can be created included."""
        return max(self.largest_node, self.creatable_devices if self.creatable_nodes else 0)

    @property
    def shapes(self) -> tuple[int, ...]:
        """Sizes of replicas worth telling: 1, 2, 4, 8 ... up to a whole node of the largest kind."""
        sizes = [1 << power for power in range(self.largest_replica.bit_length())]
        return tuple(sorted({*sizes, self.largest_replica} - {0}))

    def fragmentation(self, devices: int) -> Fragmentation:
        """What is free, cut into replicas of `devices` > 0."""
        free = self.free_nodes
        replicas = sum(amount // devices * nodes for amount, nodes in free)
        return Fragmentation(devices, replicas, self.free - replicas * devices)

    def only(self, accepts: Callable[[NodeGroup], bool]) -> ClassCapacity:
        """The same with only those groups that are accepted: tolerated taints, a zone, a domain, an architecture."""
        return msgspec.structs.replace(self, groups=tuple(filter(accepts, self.groups)))


def histogram(counts: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """(value, how many), the largest value first, without those that do not occur."""
    return tuple(sorted(((value, count) for value, count in counts if count), reverse=True))
