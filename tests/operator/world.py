"""A fake cluster, an operator and a clock: what the stories of the reconcile loop are told with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tandem_operator.api import names
from tandem_operator.config import RenderSettings, Settings
from tandem_operator.reconcile.reconciler import Reconciler

from tests.operator.fake_cluster import FakeCluster

KEY = ("team", "chat")


class World:
    """A cluster, an operator and a clock."""

    def __init__(self, image: str = "image:1") -> None:
        self.cluster = FakeCluster()
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.restart_operator(image)

    def restart_operator(self, image: str = "image:1") -> None:
        settings = Settings(render=RenderSettings(default_runtime_image=image))
        self.operator = Reconciler(self.cluster, settings, lambda: self.now, lambda: "secret")

    async def look(self) -> float | None:
        return await self.operator.reconcile(KEY)

    async def settle(self) -> None:
        """All pods become ready, until nothing changes any more."""
        for _ in range(4):
            await self.look()
            self.cluster.make_ready("chat")
        await self.look()

    def change(self, **spec: Any) -> None:
        infd = self.infd()
        infd["spec"] |= spec
        infd["metadata"]["generation"] += 1

    def infd(self) -> dict[str, Any]:
        return self.cluster.find_one(names.KIND, "chat")

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.infd()["status"]["conditions"] if c["type"] == kind)

    def revisions(self) -> set[str]:
        return {n.rsplit("-", 1)[1] for n in self.cluster.names("Deployment") if n != "chat-router"}
