"""From classes and what the cluster has of them to the offers that a choice is made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from tandem_operator.api.hardware_class import HardwareClass
from tandem_operator.performance.hardware import Hardware
from tandem_operator.placement.capacity import ClassCapacity, NodeGroup
from tandem_operator.placement.catalogue import hardware_of
from tandem_operator.placement.problem import Offer

UNLIMITED_NODES: Final = 1 << 20
"""Of a class of which no count is known: room is then no matter."""


class Offers:
    """Makes offers; the figures of a class are read once, for as long as the class is the same object."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[HardwareClass, Hardware]] = {}

    def hardware(self, source: HardwareClass) -> Hardware:
        """Raises ValueError naming the figure that is wrong."""
        known = self._read.get(source.name)
        if known is None or known[0] is not source:
            known = self._read[source.name] = (source, hardware_of(source))
        return known[1]

    def of(
        self,
        source: HardwareClass,
        capacity: ClassCapacity,
        in_use: bool = False,
        accepts: Callable[[NodeGroup], bool] = lambda group: True,
    ) -> Offer:
        """What there is of a class on nodes that are accepted, with those that may be created."""
        hardware = self.hardware(source)
        if capacity.memory_bytes and capacity.memory_bytes != hardware.memory_bytes:
            hardware = msgspec.structs.replace(hardware, memory_bytes=capacity.memory_bytes)
        usable = capacity.only(accepts)
        created = (usable.creatable_devices, usable.creatable_nodes)
        return Offer(
            hardware=hardware,
            resource=source.spec.resource_name,
            free=(*usable.free_nodes, *([created] if all(created) else [])),
            largest_node=capacity.largest_replica,
            in_use=in_use,
        )


def unlimited_offer(source: HardwareClass) -> Offer:
    """As many nodes as anybody could want: for planning without a cluster. Raises ValueError."""
    hardware = hardware_of(source)
    size = hardware.devices_per_node
    free = ((size, UNLIMITED_NODES),)
    return Offer(hardware=hardware, resource=source.spec.resource_name, free=free, largest_node=size)


def counted_offer(source: HardwareClass, nodes: tuple[tuple[int, int], ...]) -> Offer:
    """`nodes`: (devices of a node, how many such nodes), all free. Raises ValueError."""
    largest = max((devices for devices, count in nodes if count), default=0)
    hardware = hardware_of(source)
    return Offer(hardware=hardware, resource=source.spec.resource_name, free=nodes, largest_node=largest)
