"""Devices that are promised and not yet held, so that deployments planned at one moment do not all take the same."""

from __future__ import annotations

from collections import Counter

from tandem_operator.placement.inventory import Inventory

Claim = tuple[str, int, int]
"""Class, devices of a replica, replicas."""
Outstanding = dict[str, Counter[int]]
"""Replicas by class and by devices of a replica."""


class Claims:
    """By owner; what its pods already hold is the inventory's to know."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._claims: dict[str, tuple[Claim, ...]] = {}
        self._left: dict[str, tuple[Claim, ...]] = {}
        self._total: Outstanding = {}
        self._seen = -1

    def put(self, owner: str, claims: tuple[Claim, ...]) -> None:
        """Instead of what this owner claimed before."""
        if self._claims.get(owner) == claims:
            return
        self._refresh()
        self._add(owner, -1)
        self._claims[owner] = claims
        self._left[owner] = self._unheld(owner)
        self._add(owner, +1)

    def forget(self, owner: str) -> None:
        if owner in self._claims:
            self._refresh()
            self._add(owner, -1)
            del self._claims[owner], self._left[owner]

    def outstanding(self, name: str, besides: str) -> list[tuple[int, int]]:
        """(devices of a replica, replicas) of a class, of all owners but one."""
        self._refresh()
        total = self._total.get(name)
        if not total:
            return []
        own: Counter[int] = Counter()
        for one, devices, count in self._left.get(besides, ()):
            own[devices] += count if one == name else 0
        return [(devices, count - own[devices]) for devices, count in total.items() if count > own[devices]]

    def _refresh(self) -> None:
        """Pods that came or went change what is still outstanding."""
        if self._seen == self._inventory.version:
            return
        self._seen = self._inventory.version
        self._total = {}
        for owner in self._claims:
            self._left[owner] = self._unheld(owner)
            self._add(owner, +1)

    def _add(self, owner: str, sign: int) -> None:
        for name, devices, replicas in self._left.get(owner, ()):
            self._total.setdefault(name, Counter())[devices] += sign * replicas

    def _unheld(self, owner: str) -> tuple[Claim, ...]:
        held = self._inventory.used_by(owner)
        left = []
        for name, devices, replicas in self._claims[owner]:
            taken = min(replicas, held.get(name, 0) // devices)
            held[name] = held.get(name, 0) - taken * devices
            if replicas > taken:
                left.append((name, devices, replicas - taken))
        return tuple(left)
