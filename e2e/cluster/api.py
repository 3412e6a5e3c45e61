"""The few questions that `up` asks the API server many times; kubectl would need 0.1 s of CPU for each."""

from __future__ import annotations

import datetime
import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from e2e.cluster.errors import ClusterError

POLL_SECONDS = 0.1
REQUEST_SECONDS = 10.0


class Api:
    """Reads from one API server with a client certificate. Never goes through a proxy."""

    def __init__(self, host: str, port: int, authority: Path, certificate: Path, key: Path) -> None:
        self._host, self._port = host, port
        self._context = ssl.create_default_context(cafile=str(authority))
        self._context.load_cert_chain(certificate, key)

    def get(self, path: str) -> str | None:
        """The body, or None when the server does not answer with 200 (yet)."""
        try:
            status, body = self._request("GET", path)
            return body if status == 200 else None
        except (OSError, http.client.HTTPException):
            return None

    def apply(self, path: str, value: Mapping[str, Any]) -> None:
        """Server-side apply of one object at its own path. Raises ClusterError with the server's words."""
        query = f"{path}?fieldManager=tandem-cluster&force=true"
        status, body = self._request("PATCH", query, json.dumps(value), "application/apply-patch+yaml")
        if status not in (200, 201):
            raise ClusterError(f"the API server refused {path} ({status}): {body}")

    def _request(self, method: str, path: str, body: str = "", kind: str = "application/json") -> tuple[int, str]:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=REQUEST_SECONDS, context=self._context)
        try:
            connection.request(method, path, body or None, {"Content-Type": kind})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def get_json(self, path: str) -> dict[str, Any] | None:
        body = self.get(path)
        return None if body is None else json.loads(body)

    def ready_nodes(self) -> list[str]:
        """Names of the nodes whose condition Ready is True."""
        listed = self.get_json("/api/v1/nodes") or {}
        return sorted(item["metadata"]["name"] for item in listed.get("items") or [] if is_ready(item))


def is_ready(node: Mapping[str, Any], since: float = 0.0) -> bool:
    """Whether a Node object says that it is Ready, and said so after `since` (Unix seconds).

    A node that died a few seconds ago is still called Ready: only a newer heartbeat proves that it is back.
    """
    conditions: Sequence[Mapping[str, str]] = node.get("status", {}).get("conditions") or []
    for one in conditions:
        if one["type"] == "Ready" and one["status"] == "True":
            heartbeat = datetime.datetime.fromisoformat(one["lastHeartbeatTime"]).timestamp()
            return heartbeat >= int(since)  # it has whole seconds
    return False


def wait_until(
    holds: Callable[[], bool], what: str, timeout_seconds: float, explain: Callable[[], str] = lambda: ""
) -> None:
    """Poll `holds`. Raises ClusterError naming `what`, the seconds and what `explain` returns."""
    deadline = time.monotonic() + timeout_seconds
    while not holds():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} after {timeout_seconds:g} s. {explain()}".rstrip())
        time.sleep(POLL_SECONDS)
