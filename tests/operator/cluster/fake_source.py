"""Lists and watches from memory, for feeds: pages of two, events as they are pushed, errors when told to."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from tandem_operator.reconcile.errors import ApiError

PAGE = 2


class FakeSource:
    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = defaultdict(dict)
        self.events: dict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self.failures: dict[str, list[ApiError]] = defaultdict(list)
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.version = 1

    def add(self, kind: str, body: dict[str, Any]) -> None:
        """It is there, and every running watch is told."""
        self._send(kind, "ADDED", body)
        self.objects[kind][body["metadata"]["name"]] = body

    def delete(self, kind: str, name: str) -> None:
        self._send(kind, "DELETED", self.objects[kind].pop(name))

    def lose(self, kind: str, name: str) -> None:
        """It goes while nobody hears of it."""
        del self.objects[kind][name]

    def _send(self, kind: str, what: str, body: dict[str, Any]) -> None:
        self.version += 1
        body["metadata"] = {**body["metadata"], "resourceVersion": str(self.version)}
        self.events[kind].put_nowait({"type": what, "object": body})

    def end_watch(self, kind: str) -> None:
        """The API server closes it, as it does every few minutes."""
        self.events[kind].put_nowait(None)

    def expire(self, kind: str) -> None:
        """410 Gone."""
        status = {"kind": "Status", "code": 410, "message": "too old resource version"}
        self.events[kind].put_nowait({"type": "ERROR", "object": status})

    async def list_page(self, kind: str, namespace: str | None, query: dict[str, str]) -> bytes:
        self.asked.append(("list", kind, dict(query)))
        if self.failures[kind]:
            raise self.failures[kind].pop(0)
        start = int(query.get("continue", "0"))
        items = list(self.objects[kind].values())
        metadata = {"resourceVersion": str(self.version)}
        if start + PAGE < len(items):
            metadata["continue"] = str(start + PAGE)
        if start == 0:
            while not self.events[kind].empty():  # the list knows all that was told so far
                self.events[kind].get_nowait()
        return json.dumps({"metadata": metadata, "items": items[start : start + PAGE] or None}).encode()

    async def watch_lines(
        self, kind: str, namespace: str | None, query: dict[str, str], quiet_seconds: float
    ) -> AsyncIterator[bytes]:
        self.asked.append(("watch", kind, dict(query)))
        while (event := await self.events[kind].get()) is not None:
            yield json.dumps(event).encode() + b"\n"
