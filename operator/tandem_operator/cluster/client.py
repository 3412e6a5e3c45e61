"""The API server behind the small Protocol of reconcile/world.py: plain dicts over kubernetes.aio."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from tandem_operator.api import hardware_class, names
from tandem_operator.reconcile.errors import ApiError
from tandem_operator.reconcile.world import Notice, Object

REQUEST_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
PAGE_SIZE: Final = 500
NOTE_LIMIT: Final = 1024
"""Characters that the API server allows in the note of an Event."""

RESOURCES: Final = {
    "ConfigMap": ("api/v1", "configmaps"),
    "Pod": ("api/v1", "pods"),
    "Secret": ("api/v1", "secrets"),
    "Service": ("api/v1", "services"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "Event": ("apis/events.k8s.io/v1", "events"),
    "Lease": ("apis/coordination.k8s.io/v1", "leases"),
    "Node": ("api/v1", "nodes"),
    "ValidatingWebhookConfiguration": ("apis/admissionregistration.k8s.io/v1", "validatingwebhookconfigurations"),
    names.KIND: (f"apis/{names.API_VERSION}", names.PLURAL),
    hardware_class.KIND: (f"apis/{names.API_VERSION}", hardware_class.PLURAL),
}

log = logging.getLogger(__name__)


def in_cluster() -> bool:
    """Whether this is a pod that asks the API server of its own cluster."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ


async def load_configuration() -> Configuration:
    """In a pod its ServiceAccount, else $KUBECONFIG or ~/.kube/config."""
    configuration = Configuration()
    if in_cluster():
        config.load_incluster_config(client_configuration=configuration)
    else:
        await config.load_kube_config(client_configuration=configuration, persist_config=False)
    return configuration


class KubernetesClient:
    """Implements `Cluster`, and what the Lease needs."""

    def __init__(self, configuration: Configuration, instance: str) -> None:
        self._api = ApiClient(configuration)
        self._instance = instance

    async def close(self) -> None:
        await self._api.close()

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return await self._send("GET", _path(kind, namespace, name), absent=(404,))

    async def find(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Object]:
        query = {"limit": str(PAGE_SIZE), "labelSelector": ",".join(f"{k}={v}" for k, v in sorted(labels.items()))}
        items: list[Object] = []
        while True:
            page = await self._send("GET", _path(kind, namespace), query) or {}
            # Items of a list lack what single objects have.
            items += [{"apiVersion": page["apiVersion"], "kind": kind, **item} for item in page.get("items") or []]
            token = page.get("metadata", {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    async def check(self, kind: str, namespace: str | None) -> None:
        """Raises ApiError when objects of `kind` cannot be listed in `namespace`; None: in all."""
        await self._send("GET", _path(kind, namespace), {"limit": "1"})

    async def apply(self, body: Object) -> Object:
        result = await self._apply(body, "")
        return result or {}

    async def apply_status(self, body: Object) -> None:
        await self._apply(body, "/status", absent=(404,))

    async def _apply(self, body: Object, subresource: str, absent: tuple[int, ...] = ()) -> Object | None:
        metadata = body["metadata"]
        path = _path(body["kind"], metadata.get("namespace"), metadata["name"]) + subresource
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        return await self._send("PATCH", path, query, body, "application/apply-patch+yaml", absent)

    async def offer(self, body: Object) -> None:
        """Server-side apply that takes no field away from anybody: 409 with the fields where somebody else has them."""
        metadata = body["metadata"]
        path = _path(body["kind"], metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": names.FIELD_MANAGER}
        await self._send("PATCH", path, query, body, "application/apply-patch+yaml")

    async def list_page(self, kind: str, namespace: str | None, query: dict[str, str]) -> bytes:
        """One page of a list as JSON, undecoded: whoever asked knows which part of it is needed."""
        response = await self._open("GET", _path(kind, namespace), query)
        with _told():
            data: bytes = await response.read()
        if response.status >= 300:
            raise ApiError(response.status, _message_of(data))
        return data

    async def watch_lines(
        self, kind: str, namespace: str | None, query: dict[str, str], quiet_seconds: float
    ) -> AsyncIterator[bytes]:
        """Events of a watch as JSON, one each, until the API server ends it or is silent for too long."""
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=quiet_seconds)
        opened = await self._open("GET", _path(kind, namespace), {**query, "watch": "1"}, timeout=timeout)
        response: aiohttp.ClientResponse = opened.response
        try:
            if response.status >= 300:
                raise ApiError(response.status, _message_of(await response.read()))
            while True:
                with _told():
                    line = await response.content.readline()
                if not line:
                    return
                yield line
        finally:
            response.close()

    async def patch_json(self, kind: str, namespace: str, name: str, operations: list[Object]) -> None:
        query = {"fieldManager": names.FIELD_MANAGER}
        await self._send("PATCH", _path(kind, namespace, name), query, operations, "application/json-patch+json")

    async def create(self, body: Object) -> bool:
        query = {"fieldManager": names.FIELD_MANAGER}
        result = await self._send(
            "POST", _path(body["kind"], body["metadata"]["namespace"]), query, body, absent=(409,)
        )
        return result is not None

    async def replace(self, body: Object) -> bool:
        """Only if nobody wrote since it was read; False when somebody did, or it is gone."""
        metadata = body["metadata"]
        path = _path(body["kind"], metadata["namespace"], metadata["name"])
        return await self._send("PUT", path, body=body, absent=(404, 409)) is not None

    async def delete(self, kind: str, namespace: str | None, name: str, uid: str) -> None:
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        await self._send("DELETE", _path(kind, namespace, name), body=options, absent=(404, 409))

    async def notify(self, regarding: Object, notice: Notice) -> None:
        metadata = regarding["metadata"]
        namespace = metadata.get("namespace", "default")  # where Events about nodes are kept
        now = datetime.now(UTC)
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}-", "namespace": namespace},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": notice.type,
            "reason": notice.reason,
            "action": notice.action,
            "note": notice.note[:NOTE_LIMIT],
            "reportingController": f"{names.GROUP}/operator",
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": regarding.get("apiVersion", names.API_VERSION),
                "kind": regarding.get("kind", names.KIND),
                "namespace": metadata.get("namespace", ""),
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        }
        try:
            await self._send("POST", _path("Event", namespace), body=body)
        except ApiError as error:
            log.warning("an Event was not written: %s", error, extra={"key": f"{namespace}/{metadata['name']}"})

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        absent: tuple[int, ...] = (),
    ) -> Object | None:
        """The decoded answer; None for statuses in `absent`. Raises ApiError, also when no server is reached."""
        response = await self._open(method, path, query, body, content_type)
        with _told():
            data = await response.read()
        if response.status in absent:
            return None
        if response.status >= 300:
            raise ApiError(response.status, _message_of(data), _conflicts_of(data) if response.status == 409 else ())
        answer: Object = json.loads(data) if data else {}
        return answer

    async def _open(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout = REQUEST_TIMEOUT,
    ) -> Any:
        """The answer before it is read. Raises ApiError when no server is reached."""
        headers: dict[str, str] = {"Accept": "application/json", "Content-Type": content_type}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host}/{path}" + (f"?{urlencode(query)}" if query else "")
        with _told():
            return await self._api.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the connection as ApiError."""
    try:
        yield
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ApiError(0, f"the API server is not reached: {error!r}") from error


def _path(kind: str, namespace: str | None, name: str = "") -> str:
    group, plural = RESOURCES[kind]
    where = f"{group}/namespaces/{namespace}" if namespace else group
    return f"{where}/{plural}" + (f"/{name}" if name else "")


def _message_of(data: bytes) -> str:
    try:
        return str(json.loads(data).get("message", ""))
    except (ValueError, AttributeError):
        return data[:200].decode(errors="replace")


def _conflicts_of(data: bytes) -> tuple[str, ...]:
    """Paths of fields, such as .spec.pricePerHour, that somebody else has written."""
    try:
        causes = json.loads(data)["details"]["causes"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(cause["field"] for cause in causes if cause.get("reason") == "FieldManagerConflict")
