"""The cluster as the loop sees it: a small Protocol, implemented by cluster/client.py and by a fake in the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Object = dict[str, Any]


@dataclass(frozen=True)
class Notice:
    """An Event about a deployment."""

    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str


class Cluster(Protocol):
    """Every method raises ApiError, except where it says what else an answer means."""

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """None when it does not exist."""

    async def find(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Object]:
        """Complete, or an error: never a part."""

    async def apply(self, body: Object) -> Object:
        """Server-side apply with our field manager, forced. The result."""

    async def apply_status(self, body: Object) -> None:
        """The same on the status subresource; nothing when the object is gone."""

    async def patch_json(self, kind: str, namespace: str, name: str, operations: list[Object]) -> None:
        """RFC 6902."""

    async def create(self, body: Object) -> bool:
        """False when an object of this name exists."""

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Exactly this object, in the background; nothing when it is gone."""

    async def notify(self, regarding: Object, notice: Notice) -> None:
        """Best effort: an Event that cannot be written is logged."""
