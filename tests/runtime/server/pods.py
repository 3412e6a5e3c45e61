"""Engine pods with the emulated executor in the test's event loop, over real sockets; and a small router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.coefficients import Coefficients, Decode, Link, Prefill
from tandem_runtime.contracts.framing import PREFIX, pack
from tandem_runtime.contracts.pod_protocol import Delta, Failed, PrefillPeer, Submit
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.contracts.token_file import TokenSource
from tandem_runtime.engine.client import EngineClient
from tandem_runtime.engine.emulated_executor import EmulatedExecutor
from tandem_runtime.engine.executor import Executor
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.server.internal_port import InternalPort
from tandem_runtime.server.pod import Pod, PodIdentity
from tandem_runtime.text.byte_tokenizer import ByteTokenizer
from tandem_runtime.transfer.identity import KvSettings
from tandem_runtime.transfer.pace import LinkPace

FAST = Coefficients(
    schema=1,
    prefill=Prefill(0.0005, 1e-6, 0.0),
    decode=Decode(0.0005, 0.0, 0.0),
    link=Link(0.0, 1e12),
    kv_bytes_per_token=1024,
    kv_tokens=16384,
    max_sequences=32,
    load_s=0.0,
)
WAIT_SECONDS = 10.0
DEFAULT_KV = KvSettings()


@dataclass
class RunningPod:
    """A pod and its ports."""

    pod: Pod
    port: InternalPort
    internal_port: int

    @property
    def peer(self) -> PrefillPeer:
        return PrefillPeer(self.pod.identity.pod, "127.0.0.1", self.pod.kv_port, self.pod.identity.incarnation)

    async def idle(self) -> None:
        """Until no request is inside and the books were checked."""
        await until(lambda: not self.pod.in_flight and self.pod.engine.engine.state.used_pages == 0)
        assert self.pod.engine.engine.scheduler.leaked_pages() == 0


@asynccontextmanager
async def running_pod(
    role: str = "decode",
    name: str = "",
    token: str | TokenSource = "secret",
    coefficients: Coefficients = FAST,
    executor: Executor | None = None,
    pace: LinkPace | None = None,
    kv_settings: KvSettings | None = None,
    **settings: Any,
) -> AsyncIterator[RunningPod]:
    """Ready to serve."""
    engine = EngineClient(executor or EmulatedExecutor(coefficients), replace(SchedulerSettings(), **settings))
    await engine.load()
    source = (lambda: token) if isinstance(token, str) else token
    identity = PodIdentity(name or f"{role}-0", role, "rev1", f"inc-{role}", "127.0.0.1", source, "chat")
    pod = Pod(identity, engine, ByteTokenizer(), pace, kv_settings or DEFAULT_KV)
    pod.kv_port = await pod.sender.start("127.0.0.1", 0)
    port = InternalPort(pod)
    running = RunningPod(pod, port, await port.start("127.0.0.1", 0))
    try:
        yield running
    finally:
        await port.stop()
        pod.stop()


@dataclass
class Router:
    """The router's side of one connection. Everything that came is in `messages`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    messages: list[wire.FromPod | Delta] = field(default_factory=list)
    closed: bool = False
    ping: wire.Ping = field(default_factory=wire.Ping)
    """What heartbeats say."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: wire.FromRouter) -> None:
        self.writer.write(pack(wire.encode(message)))

    async def read(self) -> None:
        try:
            while True:
                control_bytes, _ = PREFIX.unpack(await self.reader.readexactly(PREFIX.size))
                message = wire.decode_from_pod(await self.reader.readexactly(control_bytes))
                self.messages += message.deltas if isinstance(message, wire.Step) else [message]
                self.news.set()
        except (EOFError, OSError):
            self.closed = True
            self.news.set()

    async def beat(self) -> None:
        while True:
            self.send(self.ping)
            await asyncio.sleep(0.5)

    def of(self, request_id: str, attempt: int = 0) -> list[Delta | Failed]:
        return [
            m for m in self.messages if isinstance(m, Delta | Failed) and (m.id, m.attempt) == (request_id, attempt)
        ]

    def last(self, kind: type[Any]) -> Any:
        return next(m for m in reversed(self.messages) if isinstance(m, kind))

    async def heard(self, kind: type[Any], want: Callable[[Any], bool] = lambda m: True) -> Any:
        await until(lambda: any(isinstance(m, kind) and want(m) for m in self.messages))
        return next(m for m in self.messages if isinstance(m, kind) and want(m))

    async def ended(self, request_id: str, attempt: int = 0) -> Delta | Failed:
        def done() -> bool:
            replies = self.of(request_id, attempt)
            return bool(replies) and (isinstance(replies[-1], Failed) or replies[-1].finish_reason is not None)

        await until(done)
        return self.of(request_id, attempt)[-1]

    async def answer(self, submit: Submit) -> tuple[list[int], str, Delta]:
        """Ids, text and the last message of a request that must succeed; sent again while there is no credit for it."""
        self.send(submit)
        last = await self.ended(submit.id, submit.attempt)
        while isinstance(last, Failed) and last.reason == wire.Reason.OVERLOADED:
            await asyncio.sleep(0.02)
            submit = msgspec.structs.replace(submit, attempt=submit.attempt + 1)
            self.send(submit)
            last = await self.ended(submit.id, submit.attempt)
        assert isinstance(last, Delta), last
        deltas = [d for d in self.of(submit.id, submit.attempt) if isinstance(d, Delta)]
        position = len(submit.emitted_ids)
        for delta in deltas:
            assert delta.output_index == position, "no gap, no repetition"
            position += len(delta.ids)
        return [token for d in deltas for token in d.ids], "".join(d.text for d in deltas), last


@asynccontextmanager
async def router(port: int, token: str = "secret", revision: str = "rev1", beats: bool = True) -> AsyncIterator[Router]:
    """Connected, hello said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Router(reader, writer)
    tasks = [asyncio.create_task(client.read())]
    client.send(wire.RouterHello(wire.VERSION, "router-0", "r1", token, revision))
    if beats:
        tasks.append(asyncio.create_task(client.beat()))
    try:
        yield client
    finally:
        for task in tasks:
            task.cancel()
        writer.close()


async def until(holds: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Waits until it holds; fails when that takes too long."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


def submit(
    request_id: str = "a",
    prompt: str | list[int] = "hello",
    max_tokens: int = 8,
    peer: PrefillPeer | None = None,
    attempt: int = 0,
    **more: Any,
) -> Submit:
    """A greedy request of a minute."""
    ids = list(prompt.encode()) if isinstance(prompt, str) else prompt
    fields: dict[str, Any] = {"remaining_ms": 60_000} | more
    return Submit(request_id, attempt, ids, Sampling(max_tokens=max_tokens), prefill_peer=peer, **fields)
