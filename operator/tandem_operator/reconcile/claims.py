"""Devices that are promised and not yet held, so that deployments planned at one moment do not all take the same."""

from __future__ import annotations

from collections.abc import Iterator

from tandem_operator.placement.capacity import ClassCapacity
from tandem_operator.placement.inventory import Inventory

Claim = tuple[str, int, int]
"""Class, devices of a replica, replicas."""


class Claims:
    """By owner; what its pods already hold is the inventory's to know."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._claims: dict[str, tuple[Claim, ...]] = {}

    def put(self, owner: str, claims: tuple[Claim, ...]) -> None:
        self._claims[owner] = claims

    def forget(self, owner: str) -> None:
        self._claims.pop(owner, None)

    def outstanding(self, besides: str) -> dict[str, list[tuple[int, int]]]:
        """(devices of a replica, replicas) by class, of all owners but one, largest first."""
        found: dict[str, list[tuple[int, int]]] = {}
        for owner in [*self._claims]:
            if owner != besides:
                for name, devices, replicas in self._left(owner):
                    found.setdefault(name, []).append((devices, replicas))
        return {name: sorted(wanted, reverse=True) for name, wanted in found.items()}

    def _left(self, owner: str) -> Iterator[Claim]:
        """What of its claims no pod holds yet; a claim that is held in full is dropped."""
        held = self._inventory.used_by(owner)
        left = []
        for name, devices, replicas in self._claims[owner]:
            taken = min(replicas, held.get(name, 0) // devices)
            held[name] = held.get(name, 0) - taken * devices
            if replicas > taken:
                left.append((name, devices, replicas - taken))
        if not left:
            del self._claims[owner]
        yield from left


def after(capacity: ClassCapacity, wanted: list[tuple[int, int]]) -> ClassCapacity:
    """What is left of a class when those claims are met, as far as they can be."""
    for devices, replicas in wanted:
        fitting = min(replicas, capacity.fragmentation(devices).replicas)
        if fitting:
            capacity = capacity.take(devices, fitting)
    return capacity
