"""A small API server over HTTP: discovery, one deployment, watches that last, and a Lease with its optimistic lock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

PLURALS = {
    "/api/v1": [("pods", "Pod"), ("services", "Service"), ("configmaps", "ConfigMap"), ("namespaces", "Namespace")],
    "/apis/apps/v1": [("deployments", "Deployment")],
    "/apis/tandem.dev/v1alpha1": [("inferencedeployments", "InferenceDeployment")],
}
GROUPS = ("apps/v1", "tandem.dev/v1alpha1")


class Server:
    """Lists are empty but for the deployment `chat` in namespace `a`; `events` are those of its pods."""

    def __init__(self) -> None:
        self.lists: set[str] = set()
        self.lease: dict[str, Any] | None = None
        self.objects: dict[str, dict[str, Any]] = {}
        """By path, for reading."""
        self._version = 0
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path == "/api":
            return web.json_response({"versions": ["v1"]})
        if path == "/apis":
            return web.json_response({"groups": [self._group(text) for text in GROUPS]})
        if path in PLURALS:
            verbs = ["get", "list", "watch", "create", "patch", "delete"]
            resources = [
                {"name": plural, "kind": kind, "singularName": "", "namespaced": plural != "namespaces", "verbs": verbs}
                for plural, kind in PLURALS[path]
            ]
            return web.json_response({"resources": resources})
        if "/leases" in path:
            return await self._lease(request)
        if request.method == "GET" and path in self.objects:
            return web.json_response(self.objects[path])
        if request.query.get("watch"):
            return await self._stream(request, path)
        if request.method != "GET" or path.endswith("/chat"):
            return web.json_response({"message": "not found"}, status=404)
        if "limit" in request.query and request.query["limit"] != "1":
            self.lists.add(path)
        items = [labelled("chat")] if path.endswith("/inferencedeployments") and "/b/" not in path else []
        return web.json_response({"apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})

    async def _lease(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response(self.lease or {}, status=200 if self.lease else 404)
        body = await request.json()
        if request.method == "PUT" and body["metadata"].get("resourceVersion") != str(self._version):
            return web.json_response({"message": "conflict"}, status=409)
        self.take_lease(body["spec"]["holderIdentity"], body)
        return web.json_response(self.lease)

    def take_lease(self, holder: str, body: dict[str, Any] | None = None) -> None:
        """Somebody writes the Lease; without a body: another instance."""
        self._version += 1
        body = body or self.lease or {}
        metadata = {**body["metadata"], "resourceVersion": str(self._version)}
        self.lease = {**body, "metadata": metadata, "spec": {**body["spec"], "holderIdentity": holder}}

    @staticmethod
    def _group(text: str) -> dict[str, Any]:
        name, version = text.split("/")
        preferred = {"groupVersion": text, "version": version}
        return {"name": name, "versions": [preferred], "preferredVersion": preferred}

    async def _stream(self, request: web.Request, path: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport and not request.transport.is_closing():
            if path.endswith("/pods") and not self.events.empty():
                await response.write(json.dumps(self.events.get_nowait()).encode() + b"\n")
            await asyncio.sleep(0.02)
        return response


def labelled(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "2", "labels": labels}}


@asynccontextmanager
async def served(server: Server) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
