"""A decode or prefill pod without an engine: speaks the real internal protocol over a socket, answers by script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.coefficients import Coefficients
from tandem_runtime.contracts.framing import PREFIX, pack
from tandem_runtime.text.byte_tokenizer import ByteTokenizer
from tandem_runtime.text.detokenizer import Detokenizer

INCARNATIONS = count(1)
ALPHABET = "étoile filante €uro "


def answer_ids(prompt_ids: list[int], tokens: int) -> list[int]:
    """What every fake pod answers to a prompt: a function of prompt and index, like greedy decoding."""
    alphabet = ALPHABET.encode()
    start = sum(prompt_ids)
    return [alphabet[(start + index) % len(alphabet)] for index in range(tokens)]


@dataclass
class FakePod:
    """Start it with `await pod.start()`; `address` is then where it listens."""

    name: str
    role: str = "decode"
    revision: str = "rev1"
    token: str = "secret"
    token_seconds: float = 0.0
    """Pause before each token."""
    max_context_tokens: int = 4096
    ready: bool = True
    draining: bool = False
    becoming: str = ""
    flipped_from: str = ""
    flip_seconds: float = 0.0
    kv_total_tokens: int = 100_000
    slots: int | None = None
    routers: int = 0
    coefficients: Coefficients | None = None
    keeps_prefixes: bool = False
    fail: Callable[[wire.Submit], wire.Failed | None] = lambda submit: None
    die_after_tokens: int | None = None
    """Breaks all its connections when it has sent that many tokens of one request."""
    submits: list[wire.Submit] = field(default_factory=list)
    cancels: list[wire.Cancel] = field(default_factory=list)
    frozen: bool = False
    address: str = ""
    incarnation: str = ""
    connections: int = 0

    async def start(self, port: int = 0) -> FakePod:
        """A new incarnation each time."""
        self.incarnation = f"{self.name}-{next(INCARNATIONS)}"
        self._writers: set[asyncio.StreamWriter] = set()
        self._work: dict[str, asyncio.Task[None]] = {}
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def kill(self) -> None:
        """Like kill -9: connections break, nothing is said."""
        self._server.close()
        for task in self._work.values():
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()

    def flip(self, role: str, seconds: float = 0.5) -> None:
        """It is another pod from now on, and its connections end."""
        self.incarnation = f"{self.name}-{next(INCARNATIONS)}"
        self.flipped_from, self.role, self.flip_seconds = self.role, role, seconds
        self.draining, self.becoming = False, ""
        for task in self._work.values():
            task.cancel()
        self._work.clear()
        for writer in list(self._writers):
            writer.close()

    def tell_state(self) -> None:
        """To every router, at once."""
        for writer in self._writers:
            self._send(writer, self._state())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        beat: asyncio.Task[None] | None = None
        try:
            hello = await self._read(reader)
            if hello.token != self.token:
                self._send(writer, wire.Refused("wrong token"))
                return
            self._send(writer, self._hello())
            beat = asyncio.get_running_loop().create_task(self._beat(writer))
            while True:
                message = await self._read(reader)
                if isinstance(message, wire.Ping):
                    self._send(writer, wire.Pong(self.incarnation))
                elif isinstance(message, wire.Submit):
                    self.submits.append(message)
                    self._work[message.id] = asyncio.get_running_loop().create_task(self._answer(message, writer))
                elif isinstance(message, wire.Cancel):
                    self.cancels.append(message)
                    if task := self._work.pop(message.id, None):
                        task.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if beat is not None:
                beat.cancel()
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, submit: wire.Submit, writer: asyncio.StreamWriter) -> None:
        if failed := self.fail(submit):
            self._send(writer, failed)
            return
        detokenizer = Detokenizer(ByteTokenizer(), submit.prompt_ids)
        detokenizer.push(submit.emitted_ids)
        ids = answer_ids(submit.prompt_ids, submit.sampling.max_tokens)
        for index in range(len(submit.emitted_ids), len(ids)):
            await asyncio.sleep(self.token_seconds)
            if self.die_after_tokens is not None and index >= self.die_after_tokens:
                await self.kill()
                return
            text, last = detokenizer.push([ids[index]]), index + 1 == len(ids)
            usage = wire.Usage(len(submit.prompt_ids), len(ids), 0, 4096) if last else None
            delta = wire.Delta(
                submit.id,
                submit.attempt,
                index,
                [ids[index]],
                text + detokenizer.flush() if last else text,
                finish_reason="length" if last else None,
                usage=usage,
            )
            self._send(writer, wire.Step([delta]))

    async def _beat(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self._send(writer, self._state())
            if self.slots is not None:
                self._send(writer, wire.Credits(self.incarnation, self.slots, 10_000, 10_000, 2000))
            await asyncio.sleep(0.1)

    def _hello(self) -> wire.PodHello:
        return wire.PodHello(
            version=wire.VERSION,
            pod=self.name,
            role=self.role,
            revision=self.revision,
            incarnation=self.incarnation,
            address="127.0.0.1",
            kv_port=8002,
            model_name="",
            max_context_tokens=self.max_context_tokens,
            compat_hash="same",
            coefficients=self.coefficients,
            keeps_prefixes=self.keeps_prefixes,
            flipped_from=self.flipped_from,
            flip_seconds=self.flip_seconds,
        )

    def _state(self) -> wire.PodState:
        return wire.PodState(
            self.incarnation,
            ready=self.ready,
            draining=self.draining,
            running=len(self._work),
            waiting=0,
            waiting_tokens=0,
            kv_used_tokens=0,
            kv_total_tokens=self.kv_total_tokens,
            routers=self.routers,
            becoming=self.becoming,
        )

    def _send(self, writer: asyncio.StreamWriter, message: Any) -> None:
        if not self.frozen and not writer.is_closing():
            writer.write(pack(wire.encode(message)))

    async def _read(self, reader: asyncio.StreamReader) -> Any:
        control_bytes, _ = PREFIX.unpack(await reader.readexactly(PREFIX.size))
        return wire.decode_from_router(await reader.readexactly(control_bytes))
