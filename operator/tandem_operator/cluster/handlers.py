"""kopf as watch shell: every event of a deployment or of a child becomes `queue.add(key)`, nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import kopf
from kubernetes.aio.client import Configuration
from tandem_runtime.contracts.names import LABEL_DEPLOYMENT, LABEL_MANAGED_BY, MANAGED_BY

from tandem_operator.api import names
from tandem_operator.reconcile.reconciler import Key

CHILDREN: Final = (
    ("apps", "v1", "deployments"),
    ("", "v1", "services"),
    ("", "v1", "configmaps"),
    ("", "v1", "pods"),
)
"""Not Secrets: watching them takes the right to read every Secret. The token is looked after by `create` alone."""


def make_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # the Lease decides, not peering
    # Else it lists CRDs and namespaces, which takes rights, and up to 54 s without them.
    settings.scanning.disabled = True
    settings.posting.enabled = False  # we write our own Events
    settings.watching.chunk_size = 500  # a fifth of the memory at 20,000 objects, together with the next line
    settings.queueing.idle_timeout = 0.2
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30  # 300 s by default: as long as a dead connection goes unnoticed
    settings.process.ultimate_exiting_timeout = 25  # shorter than the pod's grace period
    for group, version, plural in CHILDREN:
        # The key must be a tuple: one text such as 'v1/pods' is silently ignored.
        settings.watching.label_selectors[group, version, plural] = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
    return settings


def make_registry(add: Callable[[Key], None], configuration: Configuration) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def on_deployment(namespace: str | None, name: str | None, **_: Any) -> None:
        add((str(namespace), str(name)))

    async def on_child(namespace: str | None, labels: dict[str, str], **_: Any) -> None:
        if owner := labels.get(LABEL_DEPLOYMENT):
            add((str(namespace), owner))

    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_info(configuration)

    kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)(on_deployment)
    for group, version, plural in CHILDREN:
        kopf.on.event(group, version, plural, registry=registry)(on_child)
    kopf.on.login(registry=registry)(login)
    return registry


async def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """The same credentials as the client's, read anew: tokens of a ServiceAccount are rotated."""
    authorization = (await configuration.auth_settings()).get("BearerToken", {}).get("value") or ""
    scheme, _, token = authorization.partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme.capitalize() if token else None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


async def watch(
    add: Callable[[Key], None],
    configuration: Configuration,
    namespaces: tuple[str, ...],
    stop: asyncio.Event,
    handle_signals: Callable[[], None],
) -> None:
    """Runs until `stop` is set. `handle_signals` is called once kopf has replaced our signal handlers by its own."""
    scope: dict[str, Any] = {"namespaces": namespaces} if namespaces else {"clusterwide": True}
    registry, ready = make_registry(add, configuration), asyncio.Event()
    running = kopf.operator(registry=registry, settings=make_settings(), stop_flag=stop, ready_flag=ready, **scope)
    async with asyncio.TaskGroup() as group:
        operator, started = group.create_task(running), group.create_task(ready.wait())
        await asyncio.wait([operator, started], return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            handle_signals()
        started.cancel()  # a signal may have ended kopf before it was ready
