"""What can be watched now. kopf ends for all namespaces when a single one refuses it, or when the CRD is not there.

So those that refuse are left out, and when the answer changes the process ends, to be started anew by Kubernetes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

from tandem_operator.api import names
from tandem_operator.reconcile.errors import ApiError

log = logging.getLogger(__name__)

Names = tuple[str, ...]

ANSWERS: Final = 2
"""Times that another answer must come in a row: an API server that starts refuses everybody for a moment."""


class Prober(Protocol):
    async def check(self, kind: str, namespace: str | None) -> None: ...


class Scope:
    """`namespaces` as asked for; empty: all."""

    def __init__(
        self,
        prober: Prober,
        namespaces: Names,
        check_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._prober = prober
        self._asked = namespaces
        self._check_seconds = check_seconds
        self._sleep = sleep

    async def follow(self, watch: Callable[[Names], Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
        """Waits until something can be watched, watches it, and sets `stop` when the answer changes."""
        while (found := await self._first()) is None:
            await self._sleep(self._check_seconds)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(found))
            changed = group.create_task(self._change(found))
            await asyncio.wait([watching, changed], return_when=asyncio.FIRST_COMPLETED)
            if changed.done():
                log.warning("what can be watched has changed, was %s; starting anew", ", ".join(found) or "everything")
                stop.set()
            changed.cancel()

    async def _first(self) -> Names | None:
        try:
            return await self._readable(tell=True)
        except ApiError as error:
            log.warning("what can be watched is not known yet: %s", error)
            return None

    async def _change(self, found: Names) -> None:
        """Returns when no longer exactly `found` can be read. An API server that is away changes nothing."""
        others = 0
        while others < ANSWERS:
            await self._sleep(self._check_seconds)
            try:
                others = others + 1 if await self._readable(tell=False) != found else 0
            except ApiError as error:
                log.warning("what can be watched is not known: %s", error)

    async def _readable(self, tell: bool) -> Names | None:
        """Those of the namespaces that answer; None when there is nothing to watch."""
        refusals = {namespace: await self._refusal(namespace) for namespace in self._asked or (None,)}
        for namespace, refusal in refusals.items():
            if refusal and tell:
                where = f"namespace {namespace}" if namespace else "the cluster"
                log.error(
                    "%s is not watched: %s; install the CRD, or grant the rights with the chart's watchNamespaces",
                    where,
                    refusal,
                )
        if all(refusals.values()):
            return None
        return tuple(namespace for namespace, refusal in refusals.items() if namespace and not refusal)

    async def _refusal(self, namespace: str | None) -> str:
        try:
            await self._prober.check(names.KIND, namespace)
        except ApiError as error:
            if error.status in (403, 404):
                return str(error)
            raise
        return ""
