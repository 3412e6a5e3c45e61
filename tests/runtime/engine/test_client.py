"""The event loop's side of the engine."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tandem_runtime.engine.client import EngineClient
from tandem_runtime.engine.emulated_executor import EmulatedExecutor
from tandem_runtime.engine.limits import SchedulerSettings

from tests.runtime.server.pods import FAST


async def test_whoever_waits_for_the_load_may_give_up_without_harm_to_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fell: list[object] = []
    monkeypatch.setattr(threading, "excepthook", fell.append)
    go_on = threading.Event()
    executor = EmulatedExecutor(FAST, load_seconds=1.0, sleep=lambda seconds: seconds < 1.0 or go_on.wait(10))
    client = EngineClient(executor, SchedulerSettings())
    loading = asyncio.create_task(client.load())
    await asyncio.sleep(0)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    go_on.set()
    assert (await asyncio.wrap_future(client.engine.loaded)).pages > 0
    client.engine.stop()
    assert client.engine.ended.result(10) is None
    assert not fell
