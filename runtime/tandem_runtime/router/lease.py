"""What a router may still send to one pod, as the pod last told it less what is on its way. Pure."""

from __future__ import annotations

from collections import deque

from tandem_runtime.contracts.pod_protocol import Credits


class SendLease:
    """Of one connection. A pod that never gave credits bounds nothing here; its state alone decides then."""

    def __init__(self) -> None:
        self._credits: Credits | None = None
        self._until = 0.0
        self._sent = 0
        self._on_the_way: deque[int] = deque()
        """KV tokens of requests that were not there yet when the pod counted."""

    def take(self, told: Credits, now: float) -> None:
        """The pod's newest count."""
        self._credits, self._until = told, now + told.ttl_ms / 1000
        on_the_way = 0 if told.received is None else max(0, self._sent - told.received)
        while len(self._on_the_way) > on_the_way:
            self._on_the_way.popleft()

    def sent(self, kv_tokens: int) -> None:
        """A request leaves."""
        self._sent += 1
        self._on_the_way.append(kv_tokens)

    def unsent(self) -> None:
        """The last one did not leave after all."""
        self._sent -= 1
        if self._on_the_way:
            self._on_the_way.pop()

    def slots(self, now: float) -> int | None:
        """Requests; None: no bound."""
        if self._credits is None:
            return None
        return max(0, self._credits.slots - len(self._on_the_way)) if now < self._until else 0

    def kv_tokens(self, now: float) -> int | None:
        """Of KV; None: no bound."""
        if self._credits is None:
            return None
        return max(0, self._credits.kv_tokens - sum(self._on_the_way)) if now < self._until else 0
