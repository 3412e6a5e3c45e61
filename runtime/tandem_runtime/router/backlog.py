"""What waits here, told to pods, so that they share their credits between routers by need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tandem_runtime.contracts.pod_protocol import Ping
from tandem_runtime.policy.fleet import Reservation
from tandem_runtime.policy.pods import HEADROOM_TOKENS
from tandem_runtime.policy.queue import WaitingQueue
from tandem_runtime.router.link import PodLink

IDLE: Final = Ping()
BACKLOG_SECONDS: Final = 0.05
"""Between two words to pods: as fast as they could share credits anew."""


class Backlog:
    """`ping` is what heartbeats say."""

    def __init__(self, now: float) -> None:
        self.ping = IDLE
        self._told_at = now

    def tell(
        self, queue: WaitingQueue, links: Iterable[PodLink], now: float, reserved: Reservation | None = None
    ) -> None:
        """When it changed. At once only to pods with other routers: else nobody has to know."""
        if self.ping == IDLE if not queue else now - self._told_at < BACKLOG_SECONDS:
            return
        ping = Ping(len(queue), queue.tokens, next_tokens(queue, reserved, now)) if queue else IDLE
        if ping == self.ping:
            return
        self.ping, self._told_at = ping, now
        for link in links:
            link.ping = ping
            if link.state is not None and link.state.routers > 1:
                link.send(ping)


def next_tokens(queue: WaitingQueue, reserved: Reservation | None, now: float) -> int:
    """KV that the next request needs: of the one that a pod is kept for, as its credit has to grow to that."""
    if reserved is not None and reserved.request_id in queue:
        entry, need_tokens = queue.needed(reserved.request_id)
        return need_tokens or entry.tokens + HEADROOM_TOKENS
    if (parked := queue.longest_parked(now)) is not None:
        return parked[1]
    first = queue.first(now)
    return first.tokens + HEADROOM_TOKENS if first is not None else 0
