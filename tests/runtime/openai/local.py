"""The front on a free port over a backend that answers by script; what any `Backend` may be tested with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit, Usage
from tandem_runtime.openai.backend import LaneSource, Sink
from tandem_runtime.openai.front import Front, FrontSettings
from tandem_runtime.openai.http_port import HttpPort, PortLimits
from tandem_runtime.openai.record import RequestRecord
from tandem_runtime.text.byte_tokenizer import ByteTokenizer


@dataclass
class ScriptedBackend:
    """Answers `words`, one a delta, then `ending`; pauses for ever before word number `hang_at`."""

    words: list[str] = field(default_factory=lambda: ["Hello", " wörld", ' "quoted"\n'])
    ending: Failed | None = None
    hang_at: int | None = None
    steps: bool = False
    """Lets the loop turn before each word, as a pod does."""
    max_context_tokens: int | None = 200
    submits: list[Submit] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    _work: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def submit(self, request: Submit, sink: Sink, lane: LaneSource | None = None) -> None:
        """Each word counts as two tokens."""
        self.submits.append(request)
        self._work[request.id] = asyncio.get_running_loop().create_task(self._answer(request, sink))

    async def _answer(self, request: Submit, sink: Sink) -> None:
        for index, word in enumerate(self.words):
            if index == self.hang_at:
                await asyncio.Event().wait()
            if self.steps:
                await asyncio.sleep(0)
            last = index + 1 == len(self.words) and self.ending is None
            usage = Usage(len(request.prompt_ids), 2 * len(self.words), 0, 1) if last else None
            likeliest = [(65 + other, -0.5 - other) for other in range(request.want_logprobs - 1)]
            logprobs = ([-0.25, -0.5], [likeliest, likeliest]) if request.want_logprobs else (None, None)
            sink(Delta(request.id, 0, 2 * index, [72, 105], word, "stop" if last else None, usage, *logprobs))
        if self.ending is not None:
            sink(self.ending)

    def cancel(self, request_id: str) -> None:
        """Remembers those that had not ended."""
        work = self._work.get(request_id)
        if work is not None and not work.done():
            work.cancel()
            self.cancelled.append(request_id)


@dataclass
class LocalFront:
    """What a test talks to."""

    front: Front
    backend: ScriptedBackend
    url: str
    session: aiohttp.ClientSession
    records: list[RequestRecord]
    port: HttpPort

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
        """(status, parsed body, headers)."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with self.session.post(self.url + path, data=data, headers=headers) as response:
            return response.status, msgspec.json.decode(await response.read()), response.headers

    async def chat(self, **fields: Any) -> tuple[int, Any, Any]:
        """A minimal chat request with `fields` on top."""
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], **fields}
        return await self.post("/v1/chat/completions", body)

    async def complete(self, **fields: Any) -> tuple[int, Any, Any]:
        """A minimal completion request with `fields` on top."""
        return await self.post("/v1/completions", {"model": "chat", "prompt": "hi", **fields})


@asynccontextmanager
async def running_front(
    backend: ScriptedBackend | None = None, limits: PortLimits | None = None, **settings: Any
) -> AsyncIterator[LocalFront]:
    """Ends with the front closed and nothing in flight."""
    backend = backend or ScriptedBackend()
    records: list[RequestRecord] = []
    front = Front(FrontSettings("chat", **settings), ByteTokenizer(), backend, records.append, lambda: 1234)
    port = HttpPort(front.application(), limits or PortLimits(), close_seconds=1.0)
    number = await port.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        try:
            yield LocalFront(front, backend, f"http://127.0.0.1:{number}", session, records, port)
        finally:
            await port.close()
    assert front.in_flight == 0
