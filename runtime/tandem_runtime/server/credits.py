"""Shares of what a pod can still take, one for each router; together never more than there is. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tandem_runtime.contracts.pod_protocol import Credits

LEASE_MS = 2000
"""A dead router's share is free again after that."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is free now: requests, tokens of KV, prompt tokens that may queue."""

    slots: int
    kv_tokens: int
    queue_tokens: int


def share_out(room: Room, routers: int, incarnation: str) -> list[Credits]:
    """Equal shares; what does not divide goes to the first ones."""
    return [
        Credits(
            incarnation=incarnation,
            slots=_share(room.slots, routers, index),
            kv_tokens=_share(room.kv_tokens, routers, index),
            queue_tokens=_share(room.queue_tokens, routers, index),
            ttl_ms=LEASE_MS,
        )
        for index in range(routers)
    ]


def _share(total: int, routers: int, index: int) -> int:
    whole, rest = divmod(max(0, total), routers)
    return whole + (1 if index < rest else 0)
