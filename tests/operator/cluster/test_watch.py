"""kopf against a small API server: what it asks for, and what its events become."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration
from tandem_operator.cluster.handlers import watch

PLURALS = {
    "/api/v1": [("pods", "Pod"), ("services", "Service"), ("configmaps", "ConfigMap"), ("namespaces", "Namespace")],
    "/apis/apps/v1": [("deployments", "Deployment")],
    "/apis/tandem.dev/v1alpha1": [("inferencedeployments", "InferenceDeployment")],
}
GROUPS = ("apps/v1", "tandem.dev/v1alpha1")


class Server:
    """Discovery, empty lists but for one deployment and one pod in namespace `a`, and watches that last."""

    def __init__(self) -> None:
        self.lists: set[str] = set()
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
        if request.query.get("watch"):
            return await self._stream(request, path)
        self.lists.add(path)
        items = [_body("chat")] if path.endswith("/inferencedeployments") and "/b/" not in path else []
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

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


def _body(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "2", "labels": labels}}


@asynccontextmanager
async def served(server: Server) -> AsyncIterator[Configuration]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


@pytest.mark.parametrize("namespaces", [(), ("a", "b")], ids=["all", "named"])
async def test_events_become_keys_and_nothing_outside_the_scope_is_asked_for(namespaces: tuple[str, ...]) -> None:
    server, stop, told = Server(), asyncio.Event(), asyncio.Event()
    keys: list[tuple[str, str]] = []

    async def until(count: int) -> None:
        async with asyncio.timeout(20):
            while len(keys) < count:
                await asyncio.sleep(0.01)

    async with served(server) as configuration:
        task = asyncio.create_task(watch(keys.append, configuration, namespaces, stop, told.set))
        await until(1)
        assert keys == [("a", "chat")]
        pod = _body("chat-router-1", **{"tandem.dev/deployment": "chat", "app.kubernetes.io/managed-by": "tandem"})
        server.events.put_nowait({"type": "ADDED", "object": pod})
        await until(2)
        assert keys == [("a", "chat")] * 2
        assert told.is_set(), "our own handlers of signals are back in place"
        stop.set()
        async with asyncio.timeout(20):
            await task
    where = [f"/namespaces/{name}" for name in namespaces] or [""]
    want = {
        f"{group}{inside}/{plural}"
        for group, resources in PLURALS.items()
        for plural, _ in resources
        for inside in where
        if plural != "namespaces"
    }
    assert server.lists == want, "no list of namespaces or definitions, which takes rights"


async def test_a_kopf_that_a_signal_ended_before_it_was_ready_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ended(**_: Any) -> None:
        return

    monkeypatch.setattr("kopf.operator", ended)
    told: list[bool] = []
    async with asyncio.timeout(10):
        await watch(lambda key: None, Configuration(), (), asyncio.Event(), lambda: told.append(True))
    assert told == []
