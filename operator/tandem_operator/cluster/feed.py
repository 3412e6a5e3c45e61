"""A list, then its changes, for ever: what is there is put, what went is removed. Own streams beside kopf's.

All pods of a cluster pass here, since any of them may hold devices: typed decoding of the few fields that count takes
a tenth of kopf's time and memory, and a right that is missing stops this feed only, not the operator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from tandem_operator.cluster.objects import Metadata
from tandem_operator.config import InventorySettings
from tandem_operator.reconcile.errors import ApiError

PAGE_SIZE: Final = 500
BREATH: Final = 100
"""Items after which other tasks get their turn: some 10 ms of work."""
LATE_SECONDS: Final = 30.0
"""Of silence beyond the time for which a watch was asked; then it is dead."""

log = logging.getLogger(__name__)


class Source(Protocol):
    """What a feed needs of the client."""

    async def list_page(self, kind: str, namespace: str | None, query: dict[str, str]) -> bytes: ...

    def watch_lines(
        self, kind: str, namespace: str | None, query: dict[str, str], quiet_seconds: float
    ) -> AsyncIterator[bytes]: ...


class Item(Protocol):
    @property
    def metadata(self) -> Metadata: ...


T = TypeVar("T", bound=Item)


class Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Version(msgspec.Struct):
    metadata: Metadata = msgspec.field(default_factory=Metadata)
    code: int = 0
    message: str = ""


class _Continuation(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _Continuation
    items: list[msgspec.Raw] | None = None


class Expired(Exception):
    """The API server no longer knows what happened since: all must be listed anew."""


@dataclass
class Feed(Generic[T]):
    """Objects of one kind, in one namespace or in all."""

    kind: str
    type: type[T]
    put: Callable[[T], None]
    remove: Callable[[T], None]
    listed: Callable[[set[str]], None]
    """After a complete list, with the names (namespace/name) in it: all others are gone."""
    namespace: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once everything was listed."""


async def follow(
    source: Source,
    feed: Feed[Any],
    settings: InventorySettings,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Until cancelled. Errors of the API server are logged and tried again."""
    failures = 0
    while True:
        try:
            version = await _list(source, feed)
            feed.synced.set()
            while True:
                version = await _watch(source, feed, version, settings)
                failures = 0  # who may list and not watch must not list at the quickest pace for ever
        except Expired:
            log.info("%s are listed anew: the watch was too old", feed.kind)
        except (ApiError, msgspec.MsgspecError) as error:
            seconds = min(settings.retry_seconds * 2 ** min(failures, 10), settings.retry_limit_seconds)
            where = f" in namespace {feed.namespace}" if feed.namespace else ""
            log.warning("%s%s cannot be watched, again in %.0f s: %s", feed.kind, where, seconds, error)
            failures += 1
            await sleep(seconds)


async def read_once(source: Source, feed: Feed[Any]) -> None:
    """All there is now, without following it. Raises ApiError."""
    await _list(source, feed)


async def _list(source: Source, feed: Feed[Any]) -> str:
    """Resource version of the list."""
    query = {**feed.query, "limit": str(PAGE_SIZE)}
    names: set[str] = set()
    while True:
        page = msgspec.json.decode(await source.list_page(feed.kind, feed.namespace, query), type=_Page)
        for number, raw in enumerate(page.items or []):
            item = msgspec.json.decode(raw, type=feed.type)
            names.add(key_of(item.metadata))
            feed.put(item)
            if number % BREATH == BREATH - 1:
                await asyncio.sleep(0)
        if not page.metadata.continue_:
            feed.listed(names)
            return page.metadata.resource_version
        query["continue"] = page.metadata.continue_


async def _watch(source: Source, feed: Feed[Any], version: str, settings: InventorySettings) -> str:
    """Until the API server ends it; the version that the next watch starts from."""
    query = {
        **feed.query,
        "resourceVersion": version,
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(settings.watch_seconds),
    }
    lines = source.watch_lines(feed.kind, feed.namespace, query, settings.watch_seconds + LATE_SECONDS)
    async for line in lines:
        event = msgspec.json.decode(line, type=Event)
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=_Version)
            if status.code == 410:
                raise Expired
            raise ApiError(status.code, status.message)
        if event.type == "BOOKMARK":
            version = msgspec.json.decode(event.object, type=_Version).metadata.resource_version
            continue
        item = msgspec.json.decode(event.object, type=feed.type)
        (feed.remove if event.type == "DELETED" else feed.put)(item)
        version = item.metadata.resource_version
    return version


def key_of(metadata: Metadata) -> str:
    """namespace/name; of what has no namespace the name."""
    return f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name
