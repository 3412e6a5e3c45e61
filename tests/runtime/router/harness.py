"""A real router on free ports, in the test's event loop, in front of fake pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import msgspec
from tandem_runtime.contracts.classes import read_classes, write_classes
from tandem_runtime.contracts.endpoints import Endpoints, PodEndpoint, ServiceEndpoint
from tandem_runtime.contracts.goodput import SloClass
from tandem_runtime.openai.front import FrontSettings
from tandem_runtime.policy.waiting import QueueLimits
from tandem_runtime.router.app import Ports, RouterApp
from tandem_runtime.router.settings import LinkSettings, RouterSettings
from tandem_runtime.text.tokenizer import load_tokenizer

from tests.runtime.router.fake_pod import FakePod

MODEL = "chat"
SETTINGS = RouterSettings(
    revision="rev1",
    token=lambda: "secret",
    router_id="router-0",
    incarnation="r1",
    limits=QueueLimits(wait_for_pods_seconds=5.0),
    links=LinkSettings(heartbeat_seconds=0.1, connect_timeout_seconds=1.0, max_backoff_seconds=0.2),
    retry_pause_seconds=0.05,
    watch_seconds=0.05,
)


@dataclass
class Harness:
    """`post` and `get` return (status, parsed body, headers)."""

    app: RouterApp
    session: aiohttp.ClientSession
    file: Path
    classes_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.app.http_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.app.metrics_port}"

    def list_pods(self, *pods: FakePod, services: list[ServiceEndpoint] | None = None) -> None:
        """Writes the endpoint file."""
        entries = [PodEndpoint(pod.name, pod.address, pod.role, pod.revision) for pod in pods]
        self.file.write_bytes(msgspec.json.encode(Endpoints(pods=entries, services=services or [])))

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with self.session.post(self.url + path, data=data, headers=headers) as response:
            return response.status, msgspec.json.decode(await response.read()), response.headers

    async def complete(self, prompt: str = "hello", max_tokens: int = 20, **fields: Any) -> tuple[int, Any, Any]:
        headers = fields.pop("headers", {})
        body = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, **fields}
        return await self.post("/v1/completions", body, **headers)

    async def stream_text(self, prompt: str = "hello", max_tokens: int = 20, **fields: Any) -> str:
        """The joined text of a streamed completion, which must end with [DONE]."""
        events = [event async for event in self.stream(prompt, max_tokens, **fields)]
        assert events[-1] == "[DONE]", events[-1]
        chunks = [msgspec.json.decode(event) for event in events[:-1]]
        return "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"])

    async def stream(self, prompt: str, max_tokens: int, **fields: Any) -> AsyncIterator[str]:
        """Events of a streamed completion, without `data: `."""
        body = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "stream": True, **fields}
        async with self.session.post(self.url + "/v1/completions", json=body) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                if line.startswith(b"data: "):
                    yield line[6:].strip().decode()

    async def signals(self) -> Any:
        async with self.session.get(self.metrics_url + "/signals") as response:
            return await response.json()

    async def pods_ready(self, count: int) -> None:
        """Bounded wait until the router uses that many pods."""
        await eventually(lambda: sum(pod.serves() for pod in self.app.backend.snapshots()) == count)


async def eventually(holds: Callable[[], bool], timeout_seconds: float = 5.0) -> None:
    """Bounded wait."""
    async with asyncio.timeout(timeout_seconds):
        while not holds():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running_router(
    *pods: FakePod,
    front: FrontSettings | None = None,
    classes: list[SloClass] | None = None,
    keys_folder: Path | None = None,
    **changes: Any,
) -> AsyncIterator[Harness]:
    """Starts pods that are not started yet; the router knows them all. `classes` stand in `harness.classes_file`."""
    with TemporaryDirectory() as directory:
        file = Path(directory) / "endpoints.json"
        settings = replace(SETTINGS, **changes)
        classes_file = Path(directory) / "classes.json"
        if classes is not None:
            classes_file.write_bytes(write_classes(classes))
        known = read_classes(classes_file) if classes is not None else None
        ports = Ports("127.0.0.1", 0, 0)
        front = front or FrontSettings(MODEL)
        app = RouterApp(settings, front, load_tokenizer(None), file, ports, known, known and classes_file, keys_folder)
        async with aiohttp.ClientSession() as session:
            harness = Harness(app, session, file, classes_file)
            for pod in pods:
                if not pod.address:
                    await pod.start()
            harness.list_pods(*pods)
            try:
                await app.start()
                await harness.pods_ready(sum(pod.ready for pod in pods))
                yield harness
            finally:
                await app.close()
                for pod in pods:
                    await pod.kill()
