"""All attempts to get one request's KV from another pod: two peers at most, then the prompt is computed here. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.pod_protocol import PrefillPeer
from tandem_runtime.transfer.inbound import Inbound
from tandem_runtime.transfer.limits import HandoffLimits

MAX_ATTEMPTS = 2
"""A second peer costs a round trip; when that fails too, computing here is what surely ends."""


class Pull:
    """Attempts count from 0 and are never used twice: frames of the one before are stale for good. The pages stay the
    same: what the first peer sent was checked, and is of the same tokens."""

    def __init__(
        self,
        handle: int,
        request: kv.Prefill,
        peer: PrefillPeer,
        pages: list[tuple[int, int]],
        deadline: float = float("inf"),
    ) -> None:
        self.handle, self.request, self.pages = handle, request, pages
        self.deadline = deadline
        """Of the request, on the caller's clock."""
        self.attempts = 0
        self.tried: list[PrefillPeer] = []
        self._next = peer

    def start(self, layout: kv.Layout, limits: HandoffLimits, now: float) -> Inbound:
        """The first attempt, or the one that `retry` allowed."""
        remaining_ms = self.request.remaining_ms
        if self.deadline != float("inf"):
            remaining_ms = max(1, int((self.deadline - now) * 1000))
        request = msgspec.structs.replace(self.request, attempt=self.attempts, remaining_ms=remaining_ms)
        self.attempts += 1
        self.tried.append(self._next)
        return Inbound(self.handle, request, self._next, self.pages, layout, limits, now)

    def retry(self, others: Iterable[PrefillPeer], now: float) -> bool:
        """Whether another peer is to be asked; `others`: who could be, best first."""
        if self.attempts >= MAX_ATTEMPTS or now >= self.deadline:
            return False
        tried = {(peer.address, peer.kv_port) for peer in self.tried}
        fresh = next((peer for peer in others if (peer.address, peer.kv_port) not in tried), None)
        if fresh is not None:
            self._next = fresh
        return fresh is not None
