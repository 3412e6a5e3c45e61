"""Leader election by a Lease: one instance works, the others stand by; who loses it must stop at once.

The age of a holder's renewal is measured by the watcher's own clock, as client-go does: clocks of two machines differ.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from tandem_operator.config import LeaseSettings
from tandem_operator.reconcile.errors import ApiError
from tandem_operator.reconcile.world import Object

log = logging.getLogger(__name__)


class LeaseStore(Protocol):
    async def get(self, kind: str, namespace: str, name: str) -> Object | None: ...
    async def create(self, body: Object) -> bool: ...
    async def replace(self, body: Object) -> bool: ...


class LeaseLost(Exception):
    """Somebody else may hold the Lease by now."""


class Lease:
    """`acquire` returns once it is held, `hold` raises LeaseLost when it is not any more."""

    def __init__(
        self,
        store: LeaseStore,
        namespace: str,
        identity: str,
        settings: LeaseSettings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._identity = identity
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._seen: tuple[Any, ...] | None = None
        self._seen_at = 0.0
        self.reached = False
        """Whether the API server has answered: a standby that reaches it is ready to take over."""

    async def acquire(self) -> None:
        while True:
            try:
                if await self._try():
                    log.info("the Lease is held by %s", self._identity)
                    return
            except ApiError as error:
                log.warning("the Lease cannot be read or written: %s", error)
            await self._sleep(self._settings.retry_seconds)

    async def hold(self) -> None:
        """Renews for ever."""
        renewed = self._clock()
        while True:
            await self._sleep(self._settings.retry_seconds)
            left = self._settings.renew_deadline_seconds - (self._clock() - renewed)
            try:
                async with asyncio.timeout(max(left, 0.1)):
                    if not await self._try():
                        raise LeaseLost("another instance has taken the Lease")
                renewed = self._clock()
            except (ApiError, TimeoutError) as error:
                if self._clock() - renewed >= self._settings.renew_deadline_seconds:
                    raise LeaseLost(f"not renewed for {self._clock() - renewed:.0f} s: {error}") from error
                log.warning("the Lease is not renewed: %s", error)

    async def release(self) -> None:
        """So that a standby need not wait for the Lease to run out."""
        try:
            lease = await self._store.get("Lease", self._namespace, self._settings.name)
            spec = (lease or {}).get("spec") or {}
            if lease and spec.get("holderIdentity") == self._identity:
                await self._store.replace({**lease, "spec": {**spec, "holderIdentity": ""}})
        except ApiError as error:
            log.warning("the Lease is not released: %s", error)

    async def _try(self) -> bool:
        """Takes or renews the Lease when that is allowed."""
        settings = self._settings
        lease = await self._store.get("Lease", self._namespace, settings.name)
        self.reached = True
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if lease is None:
            metadata = {"name": settings.name, "namespace": self._namespace}
            return await self._store.create(_body(metadata, self._spec(now, now, 0)))
        spec = lease.get("spec") or {}  # a Lease that a person made may be empty
        holder = spec.get("holderIdentity") or ""
        if holder == self._identity:
            renewed = self._spec(spec.get("acquireTime", now), now, spec.get("leaseTransitions", 0))
            return await self._store.replace({**lease, "spec": renewed})
        state = (holder, spec.get("renewTime"))
        if state != self._seen:
            self._seen, self._seen_at = state, self._clock()
        lasts = float(spec.get("leaseDurationSeconds") or settings.duration_seconds)
        if holder and self._clock() - self._seen_at < lasts:
            return False
        return await self._store.replace({**lease, "spec": self._spec(now, now, spec.get("leaseTransitions", 0) + 1)})

    def _spec(self, acquired: str, renewed: str, transitions: int) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._settings.duration_seconds),
            "acquireTime": acquired,
            "renewTime": renewed,
            "leaseTransitions": transitions,
        }


def _body(metadata: dict[str, str], spec: dict[str, Any]) -> Object:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
