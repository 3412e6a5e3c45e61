"""The queue of requests that no pod has taken yet: order, bounds, expiry. Time is passed in, in seconds.

First in, first out by arrival; a resumed request keeps its arrival and so stands in front of later ones.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Expiry = Literal["timeout", "no_pod"]


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds, so that an overload is answered early instead of ending in timeouts."""

    max_requests: int = 2048
    """Each holds a client connection and its prompt."""
    max_tokens: int = 8_000_000
    """Prompt tokens; about 64 MB of ids, and minutes of work for a pool."""
    wait_for_pods_seconds: float = 120.0
    """How long a request may wait while no decode pod is there at all: starting one takes a while."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request in the queue. `deadline` is its request timeout."""

    id: str
    arrived: float
    deadline: float
    tokens: int
    resumed: bool = False
    """Was admitted once already: the bounds do not apply, the client's stream is open."""
    avoid: frozenset[str] = frozenset()
    """Incarnations of pods that failed it; until `avoid_until` it rather waits than go there again."""
    avoid_until: float = 0.0

    def key(self) -> tuple[float, str]:
        """Smaller goes first. Deadlines and priorities come in here."""
        return (self.arrived, self.id)

    def avoided(self, now: float) -> frozenset[str]:
        """The pods it does not go to now."""
        return self.avoid if now < self.avoid_until else frozenset()


class QueueFull(Exception):
    """The message says which bound and what it is."""


@dataclass
class WaitingQueue:
    """Ids are unique; removing an unknown one does nothing."""

    limits: QueueLimits = field(default_factory=QueueLimits)
    tokens: int = 0
    """Prompt tokens of all that wait."""
    _keys: list[tuple[float, str]] = field(default_factory=list)
    _entries: dict[str, Waiting] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def __iter__(self) -> Iterator[Waiting]:
        """In order of service; the queue may be changed meanwhile."""
        return iter([self._entries[request_id] for _, request_id in self._keys])

    def add(self, entry: Waiting) -> None:
        """Raises QueueFull."""
        if entry.id in self._entries:
            raise ValueError(f"request {entry.id} waits already")
        if not entry.resumed:
            if len(self) >= self.limits.max_requests:
                raise QueueFull(f"{len(self)} requests wait already, which is the limit; try again later")
            if self.tokens + entry.tokens > self.limits.max_tokens and self._entries:
                raise QueueFull(
                    f"{self.tokens} prompt tokens wait already and the limit is {self.limits.max_tokens}; "
                    "try again later"
                )
        insort(self._keys, entry.key())
        self._entries[entry.id] = entry
        self.tokens += entry.tokens

    def remove(self, request_id: str) -> None:
        """Idempotent."""
        entry = self._entries.pop(request_id, None)
        if entry is not None:
            del self._keys[bisect_left(self._keys, entry.key())]
            self.tokens -= entry.tokens

    def expire(self, now: float, no_pod_since: float | None) -> list[tuple[Waiting, Expiry]]:
        """Takes out what waited too long. `no_pod_since` is when the last decode pod went, None while there is one."""
        gone: list[tuple[Waiting, Expiry]] = []
        for entry in self:
            if now >= entry.deadline:
                gone.append((entry, "timeout"))
            elif now >= self._no_pod_expiry(entry, no_pod_since):
                gone.append((entry, "no_pod"))
        for entry, _ in gone:
            self.remove(entry.id)
        return gone

    def next_event(self, now: float, no_pod_since: float | None) -> float | None:
        """When to look again even if nothing else happens: the next expiry or end of a retry's pause."""
        times = [min(entry.deadline, self._no_pod_expiry(entry, no_pod_since)) for entry in self]
        times += [entry.avoid_until for entry in self if entry.avoid_until > now]
        return min(times, default=None)

    def _no_pod_expiry(self, entry: Waiting, no_pod_since: float | None) -> float:
        if no_pod_since is None:
            return float("inf")
        return max(entry.arrived, no_pod_since) + self.limits.wait_for_pods_seconds
