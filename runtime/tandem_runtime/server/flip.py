"""A ready pod takes the other role in place, prefill to decode or back: weights and KV pages stay, no request is lost.

It drains as at SIGTERM, with a grace of the caller's: what does not finish in it goes on elsewhere. Empty, it is a pod
of the other role under a new incarnation, with new connections, so that leases, credits, fences, prefix hints and links
of the old one end by the rules for pods that are gone; a crash or SIGTERM meanwhile is one as ever.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from tandem_runtime.server.drain import DrainReport, drain

if TYPE_CHECKING:
    from tandem_runtime.server.internal_port import InternalPort
    from tandem_runtime.server.pod import Pod

log = logging.getLogger(__name__)

ROLES: Final = ("prefill", "decode")
"""That change into each other. A pod of role `both` has clients of its own, and routers know it for both anyway."""
HEARD_SECONDS: Final = 0.1
"""Routers hear within 20 ms that it takes nothing new; what they sent before is turned away and goes elsewhere at once,
instead of ending with the connection."""
READY_POLL_SECONDS: Final = 0.01
"""While links are tested: 5 s at most."""


@dataclass(slots=True)
class Flip:
    """One change of role. Times of the pod's clock."""

    was: str
    role: str
    was_incarnation: str
    ordered: float
    incarnation: str = ""
    """Of the new role; empty while the pod drains."""
    drained: DrainReport = field(default_factory=lambda: DrainReport(0))
    seconds: float | None = None
    """From the order until ready in the new role; None until then."""

    def seconds_at(self, now: float) -> float:
        """That it took, or has taken so far."""
        return round(now - self.ordered if self.seconds is None else self.seconds, 4)

    def as_dict(self, now: float) -> dict[str, Any]:
        """For whoever ordered it, /signals and the log."""
        return {
            "from": self.was,
            "to": self.role,
            "from_incarnation": self.was_incarnation,
            "incarnation": self.incarnation,
            "done": self.seconds is not None,
            **asdict(self.drained),
            "drain_seconds": round(self.drained.seconds, 4),
            "seconds": self.seconds_at(now),
        }


def make_incarnation() -> str:
    """Of a process, or of a role that it takes."""
    return secrets.token_hex(8)


class FlipRefused(ValueError):
    """The message says why, `status` as HTTP would."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.CONFLICT) -> None:
        super().__init__(message)
        self.status = status


class Flipping:
    """Of one pod and its internal port. `on_role` is called when the pod has another role, before routers hear of it;
    `on_failure` when a change broke: what the pod is then nobody knows, and the process has to end."""

    def __init__(
        self,
        pod: Pod,
        port: InternalPort,
        grace_seconds: float,
        on_role: Callable[[str], None] = lambda role: None,
        on_failure: Callable[[], None] = lambda: None,
        new_incarnation: Callable[[], str] = make_incarnation,
    ) -> None:
        self.count = 0
        """Changes that are done."""
        self.last: Flip | None = None
        """Under way, done, or ended by SIGTERM."""
        self.failure: Exception | None = None
        self._pod, self._port, self._grace_seconds = pod, port, grace_seconds
        self._on_role, self._on_failure, self._new_incarnation = on_role, on_failure, new_incarnation
        self._task: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> bool:
        """Ordered, and not ready in the new role yet."""
        return self._task is not None and not self._task.done()

    def order(self, role: str, incarnation: str, grace_seconds: float | None = None) -> Flip | None:
        """The change that leads to `role`, under way or done; None when the pod began as that. Idempotent:
        `incarnation` may be the one that the change began with; its first grace stands. Raises FlipRefused."""
        pod = self._pod
        self._check(role, incarnation)
        if self.under_way or pod.identity.role == role:
            return self.last
        if not pod.ready:
            raise FlipRefused(f"pod {pod.identity.pod} is not ready: {pod.preflight.words()}")
        flip = Flip(pod.identity.role, role, pod.identity.incarnation, pod.clock())
        flip.drained.in_flight_at_start = pod.in_flight
        self.last = flip
        grace = self._grace_seconds if grace_seconds is None else grace_seconds
        log.info("becoming a %s pod: %d requests inside, %g s for them", role, pod.in_flight, grace)
        # At once and not in the task: of two calls the second must find what the first one began.
        pod.becoming = role
        pod.draining = pod.sender.draining = True
        pod.changed.set()
        self._task = asyncio.create_task(self._run(flip, grace))
        return flip

    def _check(self, role: str, incarnation: str) -> None:
        """Raises FlipRefused for what is never right, and for what is not now."""
        identity, last = self._pod.identity, self.last
        if role not in ROLES:
            words = f"a pod becomes prefill or decode in place, not {role[:32]!r}"
            raise FlipRefused(words, HTTPStatus.BAD_REQUEST)
        if identity.role not in ROLES:
            raise FlipRefused(f"pod {identity.pod} is of role {identity.role} and keeps it")
        if self._pod.drained is not None or self._pod.engine.engine.ended.done():
            raise FlipRefused(f"pod {identity.pod} is shutting down")
        asked_before = last is not None and last.role == role and last.was_incarnation == incarnation
        if incarnation != identity.incarnation and not asked_before:
            now = f"pod {identity.pod} is incarnation {identity.incarnation} now"
            raise FlipRefused(f"{now}, and {incarnation[:64]!r} is gone")
        if self.under_way and last is not None and last.role != role:
            raise FlipRefused(f"pod {identity.pod} is becoming a {last.role} pod; order again when it is one")

    def stop(self) -> None:
        """SIGTERM: the pod keeps the role that it has at this moment."""
        if self._task is not None:
            self._task.cancel()
        self._pod.becoming = ""

    async def _run(self, flip: Flip, grace_seconds: float) -> None:
        try:
            await self._flip(flip, grace_seconds)
        except Exception as error:
            log.exception("the change of role broke")
            self.failure = error
            self._on_failure()

    async def _flip(self, flip: Flip, grace_seconds: float) -> None:
        pod = self._pod
        await asyncio.sleep(HEARD_SECONDS)
        await drain(pod, flip.drained, grace_seconds, f"became a {flip.role} pod")
        if pod.engine.engine.ended.done():
            return  # the process ends
        # Nothing waits between these: nobody may see half of the one and half of the other.
        flip.incarnation = self._new_incarnation()
        self._port.part()
        pod.take_role(flip)
        self._on_role(flip.role)
        while not pod.ready:
            await asyncio.sleep(READY_POLL_SECONDS)
        flip.seconds = pod.clock() - flip.ordered
        self.count += 1
        pod.changed.set()
        log.info("flipped", extra={"fields": flip.as_dict(pod.clock())})
