"""Two routers side by side in front of one pod, over real sockets: no shared state, and never more than it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.engine.client import EngineClient

from tests.runtime.router.fake_pod import FakePod
from tests.runtime.router.harness import Harness, eventually, running_router
from tests.runtime.server.pods import FAST, RunningPod, running_pod

SIX = msgspec.structs.replace(
    FAST, max_sequences=6, kv_tokens=1600, decode=msgspec.structs.replace(FAST.decode, phi0_s=0.002)
)


@dataclass
class Listed(FakePod):
    """A real pod as the harness of routers lists it."""

    async def kill(self) -> None:
        """Its own test ends it."""


def listed(pod: RunningPod) -> Listed:
    return Listed("decode-0", address=f"127.0.0.1:{pod.internal_port}")


@pytest.fixture
def most_open(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests the pod had after each one that it took."""
    seen: list[int] = []
    open_one = EngineClient.open

    def counted(self: EngineClient, *args: Any, **more: Any) -> int:
        handle = open_one(self, *args, **more)
        seen.append(self.open_requests)
        return handle

    monkeypatch.setattr(EngineClient, "open", counted)
    return seen


async def ask(router: Harness, requests: int, prompt: str = "hello", max_tokens: int = 20) -> list[int]:
    asked = [router.complete(prompt, max_tokens) for _ in range(requests)]
    return [status for status, _, _ in await asyncio.gather(*asked)]


@asynccontextmanager
async def one_pod_two_routers() -> AsyncIterator[tuple[RunningPod, Harness, Harness]]:
    async with (
        running_pod("decode", coefficients=SIX) as pod,
        running_router(listed(pod), router_id="a", incarnation="ra") as one,
        running_router(listed(pod), router_id="b", incarnation="rb") as two,
    ):
        await eventually(lambda: one.app.backend.board.routers() == 2)
        yield pod, one, two
        assert pod.pod.failures.keys() <= {Reason.OVERLOADED}


async def test_a_burst_at_both_is_served_whole_and_the_pod_never_has_more_than_it_takes(most_open: list[int]) -> None:
    async with one_pod_two_routers() as (pod, one, two):
        both = await asyncio.gather(ask(one, 30), ask(two, 30))
        assert both == [[200] * 30] * 2
        assert len(most_open) >= 60
        assert max(most_open) <= 6
        await pod.idle()


async def test_a_busy_router_gets_what_an_idle_one_does_not_use(most_open: list[int]) -> None:
    async with one_pod_two_routers() as (_, busy, idle):
        assert await ask(busy, 24, max_tokens=60) == [200] * 24
        assert 4 <= max(most_open) <= 6
        assert await ask(idle, 1) == [200], "and the idle one is served when it comes"


async def test_requests_that_take_more_than_half_of_the_pod_are_served_at_both(most_open: list[int]) -> None:
    async with one_pod_two_routers() as (_, one, two):
        large = "x" * 1000
        both = await asyncio.gather(ask(one, 3, large), ask(two, 3, large))
        assert both == [[200] * 3] * 2
        assert max(most_open) <= 6
