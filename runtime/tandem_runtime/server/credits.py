"""What routers may still send to a pod: leases that together never exceed what is free. Pure: `now` is passed in.

A lease is returned by use, by expiry of a router that falls silent, or at once when its connection ends. The pod counts
each request against the lease of its router, so a router that knows less than the pod is turned away, never let in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Final

LEASE_SECONDS: Final = 2.0
"""A router that was silent for so long has no credit; it says something at every heartbeat, 0.7 s."""
GRACE_SECONDS: Final = 0.05
"""How long the pod still honours what it takes back for others: a request may be on its way. Longer would make a busy
router wait for an idle one's credit; what comes even later is only turned away."""
KINDS: Final = ("slots", "kv_tokens", "queue_tokens")


@dataclass(frozen=True, slots=True)
class Room:
    """What is free now: requests, tokens of KV, prompt tokens that may queue."""

    slots: int
    kv_tokens: int
    queue_tokens: int


@dataclass(slots=True)
class Backlog:
    """What a router holds back because nobody takes it: requests, their tokens, and those of the next one alone."""

    requests: int = 0
    tokens: int = 0
    next_tokens: int = 0


@dataclass(slots=True)
class Lease:
    """Of one router. `told`: what it was told; `held`: what the pod honours and nobody else gets, never less."""

    told: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    held: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    until: float = 0.0
    shrinks_at: float = inf
    backlog: Backlog = field(default_factory=Backlog)
    waiting_since: float = inf
    """When it began to wait, or was last served: who waits longest comes first."""
    received: int = 0
    """Requests of it that arrived, whatever became of them."""

    def clear(self) -> None:
        """It has no credit any more."""
        for kind in KINDS:
            self.told[kind] = self.held[kind] = 0
        self.shrinks_at = inf


class CreditLedger:
    """All routers of one pod. A clock that goes back is taken to stand still."""

    def __init__(self, lease_seconds: float = LEASE_SECONDS, grace_seconds: float = GRACE_SECONDS) -> None:
        self.leases: dict[int, Lease] = {}
        """By connection."""
        self._lease_seconds, self._grace_seconds = lease_seconds, grace_seconds
        self._now = 0.0

    def join(self, router: int, now: float) -> None:
        """A router has connected."""
        self.leases[router] = Lease(until=self._time(now) + self._lease_seconds)

    def leave(self, router: int) -> None:
        """Its connection ended; what it had is free at once. Idempotent."""
        self.leases.pop(router, None)

    def heard(self, router: int, now: float) -> None:
        """It lives."""
        lease, now = self.leases.get(router), self._time(now)
        if lease is not None:
            self._settle(now)
            lease.until = now + self._lease_seconds

    def arrived(self, router: int) -> None:
        """A request of it came, whatever becomes of it; it is told, so that it knows what is still on its way."""
        lease = self.leases.get(router)
        if lease is not None:
            lease.received += 1

    def report(self, router: int, backlog: Backlog, now: float) -> bool:
        """What it holds back; whether shares should be made anew for it at once."""
        lease, now = self.leases.get(router), self._time(now)
        if lease is None:
            return False
        before, lease.backlog = lease.backlog, backlog
        if not backlog.requests:
            lease.waiting_since = inf
        elif lease.waiting_since == inf:
            lease.waiting_since = now
        return bool(backlog.requests) and before != backlog

    def use(self, router: int, kv_tokens: int, queue_tokens: int, room: Room, now: float) -> bool:
        """One request arrived that needs so much. False: it is beyond the router's credit, or beyond what is free.

        `queue_tokens` only count; what may queue is the engine's to refuse.
        """
        lease, now = self.leases.get(router), self._time(now)
        if lease is None:
            return False
        self._settle(now)
        if lease.held["slots"] < 1 or room.slots < 1 or kv_tokens > min(lease.held["kv_tokens"], room.kv_tokens):
            return False
        for kind, amount in zip(KINDS, (1, kv_tokens, queue_tokens), strict=True):
            lease.held[kind] = max(0, lease.held[kind] - amount)
            lease.told[kind] = max(0, lease.told[kind] - amount)
        if lease.backlog.requests:
            lease.waiting_since = now
        return True

    def share(self, room: Room, now: float) -> dict[int, Lease]:
        """New shares of what is free, by connection; tell each router what it is `told`."""
        now = self._time(now)
        self._settle(now)
        alive = [router for router, lease in self.leases.items() if lease.until > now]
        alive.sort(key=lambda router: (self.leases[router].waiting_since, router))
        for kind in KINDS:
            self._cut(kind, max(0, getattr(room, kind)))
            self._spread(kind, max(0, getattr(room, kind)), alive, now)
        return self.leases

    def ttl_seconds(self, router: int, now: float) -> float:
        """That its lease will last if it says nothing more."""
        return max(0.0, self.leases[router].until - self._time(now))

    def wait_seconds(self, now: float) -> float:
        """Until something is free for others without anybody doing anything."""
        now = self._time(now)
        return max(0.0, min((lease.shrinks_at for lease in self.leases.values()), default=inf) - now)

    def _time(self, now: float) -> float:
        self._now = max(self._now, now)
        return self._now

    def _settle(self, now: float) -> None:
        """What is over is over."""
        for lease in self.leases.values():
            if now >= lease.until:
                lease.clear()
                lease.backlog, lease.waiting_since = Backlog(), inf
            elif now >= lease.shrinks_at:
                lease.held.update(lease.told)
                lease.shrinks_at = inf

    def _cut(self, kind: str, free: int) -> None:
        """Room went to what runs, or to nobody: the pod drains. All give the same share of what they hold."""
        total = sum(lease.held[kind] for lease in self.leases.values())
        if total > free:
            for lease in self.leases.values():
                lease.held[kind] = lease.held[kind] * free // total
                lease.told[kind] = min(lease.told[kind], lease.held[kind])

    def _spread(self, kind: str, free: int, routers: list[int], now: float) -> None:
        targets = self._targets(kind, free, routers)
        left = free - sum(lease.held[kind] for lease in self.leases.values())
        for router in routers:
            lease, target = self.leases[router], targets[router]
            if target < lease.told[kind]:
                lease.told[kind] = target
                lease.shrinks_at = min(lease.shrinks_at, now + self._grace_seconds)
                continue
            grown = min(target, lease.held[kind] + left)
            left -= max(0, grown - lease.held[kind])
            lease.held[kind] = max(lease.held[kind], grown)
            lease.told[kind] = max(lease.told[kind], grown)

    def _targets(self, kind: str, free: int, routers: list[int]) -> dict[int, int]:
        """Who waits longest first gets what its next request needs, even all there is: else several large requests
        would keep each other waiting for ever. The rest goes by backlog, and in equal parts where nobody waits."""
        targets = dict.fromkeys(routers, 0)
        left = free
        for router in routers:
            backlog = self.leases[router].backlog
            if backlog.requests:
                targets[router] = min(left, 1 if kind == "slots" else backlog.next_tokens)
                left -= targets[router]
        weights = {router: 1 + self._rest(router, kind) for router in routers}
        total = sum(weights.values())
        spread = left
        for router in routers:
            part = spread * weights[router] // total
            targets[router] += part
            left -= part
        for router in routers[:left]:  # what does not divide, at most one each
            targets[router] += 1
        return targets

    def _rest(self, router: int, kind: str) -> int:
        """What waits behind the next one."""
        backlog = self.leases[router].backlog
        if not backlog.requests:
            return 0
        return backlog.requests - 1 if kind == "slots" else max(0, backlog.tokens - backlog.next_tokens)
