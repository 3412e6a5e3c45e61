"""An in-path TCP proxy: passes bytes on, swallows them when the network is cut, and damages KV frames on demand.

It knows where frames of the kv port begin and end, and nothing else of the product.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, Literal

import msgspec
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import PREFIX

FrameFault = Literal["duplicated", "late", "truncated", "flipped"]
FRAME_FAULTS: Final[tuple[FrameFault, ...]] = ("duplicated", "late", "truncated", "flipped")
PIECE_BYTES: Final = 1 << 16
CHANCE: Final = 0.3
"""Of a frame to be hit while faults are left: some of each request come through, in any pattern."""
KEPT_FRAMES: Final = 64
"""Old frames that may be said again long after their request."""


class Wire:
    """One listening address in front of one port. `framed`: a kv port, whose answers come as frames."""

    def __init__(self, target: tuple[str, int], random: Random, framed: bool) -> None:
        self.target = target
        self.port = 0
        self.cut = False
        self.fault: FrameFault | None = None
        self.faults_left = 0
        self.injected = 0
        self._random = random
        self.framed = framed
        self._old: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> None:
        """Until `close`."""
        self._server = await asyncio.start_server(self._serve, host, port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def arm(self, fault: FrameFault, count: int) -> None:
        """The next frames are hit."""
        self.fault, self.faults_left = fault, count

    def disarm(self) -> None:
        """No more of it."""
        self.fault, self.faults_left = None, 0

    def close(self) -> None:
        """Ends all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # `close` was called
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.cut:  # a SYN into a cut network is answered by nobody, and then perhaps late
            await asyncio.sleep(0.05)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            return
        answers = self._pass_frames if self.framed else self._pass_bytes
        ways = [
            asyncio.create_task(self._guard(self._pass_bytes, reader, far_writer)),
            asyncio.create_task(self._guard(answers, far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if self.cut:  # an end that nobody hears
                await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            far_writer.transport.abort()

    async def _guard(
        self,
        way: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError, EOFError):
            await way(reader, writer)
        while self.cut:
            await asyncio.sleep(0.05)

    async def _hold_while_cut(self) -> None:
        while self.cut:
            await asyncio.sleep(0.05)

    async def _pass_bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE_BYTES):
            await self._hold_while_cut()
            writer.write(piece)
            await writer.drain()

    async def _pass_frames(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            prefix = await reader.readexactly(PREFIX.size)
            control_bytes, payload_bytes = PREFIX.unpack(prefix)
            control = await reader.readexactly(control_bytes)
            payload = await reader.readexactly(payload_bytes)
            await self._hold_while_cut()
            message = kv.decode(control)
            if not await self._hit(message, control, payload, writer):
                writer.write(prefix + control + payload)
            await writer.drain()
            if isinstance(message, kv.Frame):
                self._old.append(prefix + control + payload)
                del self._old[:-KEPT_FRAMES]

    async def _hit(self, message: kv.Message, control: bytes, payload: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether the frame was damaged (and sent in that form, or not at all). COMMIT may lose a bit too."""
        if self.fault is None or not self.faults_left or self._random.random() > CHANCE:
            return False
        if not isinstance(message, kv.Frame | kv.Commit if self.fault == "flipped" else kv.Frame):
            return False
        self.faults_left -= 1
        self.injected += 1
        frame = PREFIX.pack(len(control), len(payload)) + control + payload
        match self.fault:
            case "duplicated":
                writer.write(frame + frame)
            case "late":
                await self._delay(frame, writer)
            case "flipped":
                writer.write(flip_bit(frame, self._random))
            case "truncated":
                await self._truncate(message, frame, payload, writer)
        return True

    async def _delay(self, frame: bytes, writer: asyncio.StreamWriter) -> None:
        """It comes after frames that were sent later, or one of an earlier request is said again before it."""
        if self._old and self._random.random() < 0.5:
            writer.write(self._random.choice(self._old) + frame)
            return
        task = asyncio.create_task(_write_later(writer, frame, self._random.uniform(0.01, 3.0)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _truncate(self, message: kv.Message, frame: bytes, payload: bytes, writer: asyncio.StreamWriter) -> None:
        cut = self._random.randrange(1, len(frame))
        way = self._random.randrange(3)
        if way == 0:  # the connection ends in the middle
            writer.write(frame[:cut])
            await writer.drain()
            raise EOFError
        if way == 1 and payload and isinstance(message, kv.Frame):  # shorter, and consistent about it
            left = payload[: self._random.randrange(len(payload))]
            control = kv.encode(msgspec.structs.replace(message, len=len(left)))
            writer.write(PREFIX.pack(len(control), len(left)) + control + left)
            return
        writer.write(frame[:cut])  # the rest is missing, and what follows is taken for it


async def _write_later(writer: asyncio.StreamWriter, frame: bytes, seconds: float) -> None:
    await asyncio.sleep(seconds)
    if not writer.is_closing():
        writer.write(frame)


def flip_bit(frame: bytes, random: Random) -> bytes:
    """One bit of it, anywhere: lengths, header or payload."""
    damaged = bytearray(frame)
    # Every second one before the payload: else nearly all would hit the payload, whose checksum is the easy part.
    end = len(frame) if random.random() < 0.5 else PREFIX.size + PREFIX.unpack_from(frame)[0]
    damaged[random.randrange(end)] ^= 1 << random.randrange(8)
    return bytes(damaged)
