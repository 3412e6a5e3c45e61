"""Requests of equal rank in order of their keys, with tenants kept near each other. O(log n) each operation.

A tenant is served by its keys until it had `burst_tokens` more than the least served tenant that waits; then the
others catch up. A tenant that comes back from idling starts level with the least served one: idling saves nothing up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from tandem_runtime.policy.waiting import Waiting

Item = tuple[float, float, int]
"""Two keys and a number that is unique and grows; smaller goes first."""
SLACK_ITEMS = 64
"""Removed items that a heap keeps at least before it is made anew. Who left and came back may be in it twice."""
REMEMBERED_TENANTS = 10_000
"""Idle tenants whose lead is known; beyond that the oldest are forgotten, which is in their favour."""


@dataclass(slots=True)
class Tenant:
    """What waits of one tenant. `served` is in tokens, comparable within the band."""

    heap: list[Item] = field(default_factory=list)
    waiting: int = 0
    served: float = 0.0
    listed: int = -1
    """Number of the item by which it stands in the band's order; -1: it does not."""
    held: bool = False


class Band:
    """Items are told apart by their number."""

    def __init__(self, burst_tokens: float) -> None:
        self._burst = burst_tokens
        self._live: dict[int, Waiting] = {}
        self._tenants: dict[str, Tenant] = {}
        self._idle: dict[str, float] = {}
        self._order: list[tuple[Item, str]] = []
        self._served: list[tuple[float, str]] = []
        self._held: list[tuple[float, str]] = []
        self._floor = 0.0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, number: int) -> bool:
        return number in self._live

    def add(self, item: Item, entry: Waiting) -> None:
        """The number must be new."""
        tenant = self._tenants.get(entry.tenant)
        if tenant is None:
            tenant = self._tenants[entry.tenant] = Tenant()
            tenant.served = max(self._idle.pop(entry.tenant, 0.0), self._lowest())
            heappush(self._served, (tenant.served, entry.tenant))
        self._live[item[2]] = entry
        tenant.waiting += 1
        heappush(tenant.heap, item)
        if tenant.heap[0][2] == item[2] and not tenant.held:
            tenant.listed = item[2]
            heappush(self._order, (item, entry.tenant))

    def discard(self, number: int) -> None:
        """Idempotent."""
        entry = self._live.pop(number, None)
        if entry is None:
            return
        tenant = self._tenants[entry.tenant]
        tenant.waiting -= 1
        if not tenant.waiting:
            self._retire(entry.tenant, tenant)
        elif len(tenant.heap) > 2 * tenant.waiting + SLACK_ITEMS:
            tenant.heap = [item for item in dict.fromkeys(tenant.heap) if item[2] in self._live]
            heapify(tenant.heap)

    def first(self) -> tuple[Item, Waiting] | None:
        """Who goes next; stays inside."""
        if not self._live:
            return None
        limit = self._lowest() + self._burst
        while self._held and self._held[0][0] <= limit:
            name = heappop(self._held)[1]
            held = self._tenants.get(name)
            if held is not None and held.held:
                held.held = False
                self._list(name, held)
        while True:
            item, name = self._order[0]
            tenant = self._tenants.get(name)
            if tenant is None or tenant.held or tenant.listed != item[2]:
                heappop(self._order)
            elif item[2] not in self._live:
                heappop(self._order)
                self._list(name, tenant)
            elif tenant.served > limit:
                heappop(self._order)
                tenant.held, tenant.listed = True, -1
                heappush(self._held, (tenant.served, name))
            else:
                return item, self._live[item[2]]

    def charge(self, name: str, tokens: int) -> None:
        """A tenant's request was sent off."""
        tenant = self._tenants.get(name)
        if tenant is None:
            self._idle[name] = max(self._idle.get(name, 0.0), self._floor) + tokens
        else:
            tenant.served += tokens
            heappush(self._served, (tenant.served, name))

    def _lowest(self) -> float:
        """Of all tenants that wait; what it was last when none does."""
        while self._served:
            served, name = self._served[0]
            tenant = self._tenants.get(name)
            if tenant is not None and tenant.served == served:
                self._floor = max(self._floor, served)
                break
            heappop(self._served)
        return self._floor

    def _list(self, name: str, tenant: Tenant) -> None:
        while tenant.heap[0][2] not in self._live:
            heappop(tenant.heap)
        tenant.listed = tenant.heap[0][2]
        heappush(self._order, (tenant.heap[0], name))

    def _retire(self, name: str, tenant: Tenant) -> None:
        del self._tenants[name]
        if len(self._tenants) == 0:
            self._order.clear()
            self._held.clear()
            self._served.clear()
            self._floor = max(self._floor, tenant.served)
        self._idle[name] = tenant.served
        if len(self._idle) > REMEMBERED_TENANTS:
            del self._idle[next(iter(self._idle))]
