"""The certificate's home is a Secret: every replica serves with what is in it, the holder of the Lease renews it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, Protocol

from tandem_operator.cluster.certificates import Credentials, issue, read_credentials
from tandem_operator.reconcile.errors import ApiError
from tandem_operator.reconcile.world import Object

log = logging.getLogger(__name__)

CONFIGURATION: Final = "ValidatingWebhookConfiguration"
CHECK_SECONDS: Final = 30.0
"""Two small reads; a caBundle that somebody emptied is back after this time, and a renewal is served with."""
FIRST_CHECK_SECONDS: Final = 2.0
"""While there is no certificate yet, after an installation."""


class TrustStore(Protocol):
    async def get(self, kind: str, namespace: str, name: str) -> Object | None: ...
    async def patch_json(self, kind: str, namespace: str, name: str, operations: list[Object]) -> None: ...


class Trust:
    """Secret `secret` in `namespace`, Service `service` there, and the webhook configuration `configuration`.

    The chart makes all three: the operator may get and patch these very objects, and create none.
    """

    def __init__(
        self,
        store: TrustStore,
        namespace: str,
        name: str,
        configuration: str,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store, self._namespace, self._name, self._configuration = store, namespace, name, configuration
        self._now, self._sleep = now, sleep
        self.current: Credentials | None = None

    @property
    def names(self) -> list[str]:
        """By which API servers call the Service."""
        base = f"{self._name}.{self._namespace}.svc"
        return [base, f"{base}.cluster.local"]

    async def follow(self, leads: Callable[[], bool], changed: Callable[[Credentials], Awaitable[None]]) -> None:
        """For ever: renew where that is ours to do, and tell of every certificate that is not the one before."""
        while True:
            try:
                found = await (self.renew() if leads() else self.read())
                if found and found != self.current:
                    await changed(found)
                    self.current = found
            except ApiError as error:
                log.warning("the certificate of the admission webhook is not read or renewed: %s", error)
            except OSError as error:  # ssl.SSLError is one, and a port that is taken
                log.error("the admission webhook cannot be served: %s", error)
            await self._sleep(CHECK_SECONDS if self.current else FIRST_CHECK_SECONDS)

    async def read(self) -> Credentials | None:
        """What the Secret holds; None: nothing that can be served with."""
        secret = await self._store.get("Secret", self._namespace, self._name)
        return read_credentials((secret or {}).get("data"))

    async def renew(self) -> Credentials | None:
        """Issues when that is due, and sees that the API servers trust what is served with.

        The trust comes first: an API server that knows the new authority still trusts the old one as well. Of two
        that renew at once one writes the Secret, for the other it has changed since it was read.
        """
        secret = await self._store.get("Secret", self._namespace, self._name)
        if secret is None:
            log.error("there is no Secret %s/%s; the chart makes it: upgrade the release", self._namespace, self._name)
            return None
        found = read_credentials(secret.get("data"))
        if found is None or found.due(self._now()):
            found = issue(self.names, self._now(), before=found)
            await self._tell(found)
            version = secret["metadata"]["resourceVersion"]
            operations: list[Object] = [
                {"op": "test", "path": "/metadata/resourceVersion", "value": version},
                {"op": "add", "path": "/data", "value": found.data()},
            ]
            await self._store.patch_json("Secret", self._namespace, self._name, operations)
            log.info("the certificate of the admission webhook is new, it expires %s", found.expires.isoformat())
        else:
            await self._tell(found)
        return found

    async def _tell(self, credentials: Credentials) -> None:
        """caBundle of every webhook of our configuration."""
        body = await self._store.get(CONFIGURATION, "", self._configuration)
        if body is None:
            log.error("there is no %s %s; the chart makes it: upgrade the release", CONFIGURATION, self._configuration)
            return
        bundle = credentials.ca_bundle()
        operations: list[Object] = []
        for index, webhook in enumerate(body.get("webhooks") or []):
            if webhook["clientConfig"].get("caBundle") != bundle:
                path = f"/webhooks/{index}"
                operations.append({"op": "test", "path": f"{path}/name", "value": webhook["name"]})
                operations.append({"op": "add", "path": f"{path}/clientConfig/caBundle", "value": bundle})
        if operations:
            await self._store.patch_json(CONFIGURATION, "", self._configuration, operations)
