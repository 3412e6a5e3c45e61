"""Orders about one pod of this router: fence it, let it work again, drain it (finish, or move what takes too long)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from tandem_runtime.contracts.pod_protocol import PodHello
from tandem_runtime.contracts.token_file import TokenSource
from tandem_runtime.router.drains import Cause, Drain, Drains
from tandem_runtime.router.fences import FenceRefused
from tandem_runtime.router.link import PodLink
from tandem_runtime.telemetry.http import Answer, Order, OrderRoute, as_json, refuse_stranger, text

if TYPE_CHECKING:
    from tandem_runtime.router.backend import RouterBackend

log = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 30.0
"""For what runs to finish where it is, when the order names no time; then it moves."""
MOVE_AGAIN_SECONDS: Final = 0.5
"""Until a pod is there that could take what has to move."""


class PodOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of /fence, /unfence and /drain."""

    pod: str
    incarnation: str
    timeout_seconds: float = DRAIN_SECONDS
    """/drain only: from then on what still runs there is moved to other pods."""


class Draining:
    """All orders are idempotent. They are about one incarnation: a pod that restarted meanwhile is left in peace."""

    def __init__(self, backend: RouterBackend, token: TokenSource, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._token = token
        self._clock = clock
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def routes(self) -> dict[str, OrderRoute]:
        """For the metrics port."""
        return {
            "/fence": lambda order: self._obey(order, self.fence),
            "/unfence": lambda order: self._obey(order, self.unfence),
            "/drain": lambda order: self._obey(order, self.drain),
        }

    def fence(self, order: PodOrder) -> Answer:
        """It gets no new requests; those that run go on."""
        link = self._find(order)
        self._backend.board.fences.put(order.pod, order.incarnation, self._clock())
        self._touched(link)
        return as_json(self._state(order, link))

    def unfence(self, order: PodOrder) -> Answer:
        """It gets requests again, and a drain that is under way ends; what has moved does not come back."""
        link = self._find(order)
        self._backend.board.fences.remove(order.incarnation)
        self._backend.drains.stop(order.incarnation, self._clock())
        if timer := self._timers.pop(order.incarnation, None):
            timer.cancel()
        self._touched(link)
        return as_json(self._state(order, link))

    def drain(self, order: PodOrder) -> Answer:
        """Fences it and answers with the account as it stands: 202 while requests run there, 200 when none is left.
        Ask again, or read /signals, for the end."""
        link = self._find(order)
        now = self._clock()
        self._backend.board.fences.put(order.pod, order.incarnation, now)
        known = self._backend.drains.records.get(order.incarnation)
        if link is not None and link.hello is not None:
            known = begin_drain(self._backend.drains, link, link.hello, "order", now)
        if known is None:
            raise FenceRefused(f"pod {order.pod} is not connected, and nothing of this router was there to be drained")
        drain = known
        if drain.ended is None and order.incarnation not in self._timers:
            self._call_later(order.timeout_seconds, drain)
        self._touched(link)
        account = msgspec.to_builtins(drain.signals(now))
        return as_json(account, 200 if drain.ended is not None else 202)

    def close(self) -> None:
        """No order is waited for any more."""
        for timer in self._timers.values():
            timer.cancel()

    def _obey(self, order: Order, action: Callable[[PodOrder], Answer]) -> Answer:
        if (refused := refuse_stranger(order, self._token())) is not None:
            return refused
        try:
            wanted = msgspec.json.decode(order.body, type=PodOrder)
        except msgspec.DecodeError as error:
            return text(400, f'not {{"pod": NAME, "incarnation": ID}}: {error}')
        if not 0 <= wanted.timeout_seconds < 1e6:
            return text(400, f"timeout_seconds is {wanted.timeout_seconds}; expected are 0 to 1,000,000")
        try:
            return action(wanted)
        except FenceRefused as error:
            return text(409 if error.gone else 404, str(error))

    def _find(self, order: PodOrder) -> PodLink | None:
        """None while that incarnation is known and not connected. Raises FenceRefused."""
        for link in self._backend.links.values():
            if link.hello is not None and link.hello.pod == order.pod:
                if link.hello.incarnation == order.incarnation:
                    return link
                now = f"pod {order.pod} is incarnation {link.hello.incarnation} now"
                raise FenceRefused(f"{now}, and {order.incarnation[:64]!r} is gone", gone=True)
        known = self._backend.board.startups.get(order.incarnation)
        if known is not None and known.pod == order.pod:
            return None
        raise FenceRefused(f"no pod {order.pod[:64]!r} is connected to this router")

    def _state(self, order: PodOrder, link: PodLink | None) -> dict[str, object]:
        return {
            "pod": order.pod,
            "incarnation": order.incarnation,
            "fenced": order.incarnation in self._backend.board.fences,
            "connected": link is not None,
            "in_flight": len(requests_at(link)) if link is not None else 0,
        }

    def _touched(self, link: PodLink | None) -> None:
        if link is not None:
            self._backend.link_changed(link)

    def _call_later(self, seconds: float, drain: Drain) -> None:
        loop = asyncio.get_running_loop()
        self._timers[drain.incarnation] = loop.call_later(seconds, self._move_rest, drain)

    def _move_rest(self, drain: Drain) -> None:
        """As soon as somebody else could take it: nobody gains from a request that waits for a pod that never comes."""
        self._timers.pop(drain.incarnation, None)
        if drain.ended is not None:
            return
        fleet = self._backend.fleet
        link = next((each for each in self._backend.links.values() if each.known_as == drain.incarnation), None)
        if link is not None and any(pod.incarnation != drain.incarnation for pod in fleet.decodes):
            log.info("pod %s: %d requests move to other pods", drain.pod, len(link.flights))
            self._backend.move_all(link, f"{drain.pod} is drained")
        if link is not None and drain.ended is None:
            self._call_later(MOVE_AGAIN_SECONDS, drain)


def requests_at(link: PodLink) -> list[str]:
    """That it decodes or whose prompts it computes, for this router."""
    return [*link.flights, *(request for request in link.prefilling.requests() if request not in link.flights)]


def begin_drain(drains: Drains, link: PodLink, hello: PodHello, cause: Cause, now: float) -> Drain:
    """The account of a pod that takes nothing new."""
    return drains.begin(hello.pod, hello.role, hello.incarnation, cause, partial(requests_at, link), now)
