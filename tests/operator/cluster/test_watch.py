"""kopf against a small API server: what it asks for, and what its events become."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kubernetes.aio.client import Configuration
from tandem_operator.cluster.handlers import watch

from tests.operator.api_server import PLURALS, Server, labelled, served


@pytest.mark.parametrize("namespaces", [(), ("a", "b")], ids=["all", "named"])
async def test_events_become_keys_and_nothing_outside_the_scope_is_asked_for(namespaces: tuple[str, ...]) -> None:
    server, stop, told = Server(), asyncio.Event(), asyncio.Event()
    keys: list[tuple[str, str]] = []

    async def until(count: int) -> None:
        async with asyncio.timeout(20):
            while len(keys) < count:
                await asyncio.sleep(0.01)

    async with served(server) as host:
        watching = asyncio.create_task(watch(keys.append, Configuration(host=host), namespaces, stop, told.set))
        await until(1)
        assert keys == [("a", "chat")]
        pod = labelled("chat-router-1", **{"tandem.dev/deployment": "chat", "app.kubernetes.io/managed-by": "tandem"})
        server.events.put_nowait({"type": "ADDED", "object": pod})
        await until(2)
        assert keys == [("a", "chat")] * 2
        assert told.is_set(), "our own handlers of signals are back in place"
        stop.set()
        async with asyncio.timeout(20):
            await watching
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
