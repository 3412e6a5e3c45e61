"""Messages and payloads of one kv connection, with the rule that a message is decoded before its payload is received.

Payloads come inline (TCP) or through a ring in shared memory; whoever uses a channel does not see which. The kernel
writes an inline payload right into the memory that the page is read from later: a hand-off is mostly copying.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import MAX_CONTROL_BYTES, PREFIX, FrameError, check_lengths, pack
from tandem_runtime.engine.events import Payload
from tandem_runtime.transfer.ring import Ring

HELD_BYTES: Final = 16 << 10
"""Read ahead while nobody waits for more: some messages, and no more of a payload that may not be wanted."""
PIECE_BYTES: Final = 4 << 20
"""Memory taken at a time: who announces much and sends little holds little."""
UNSENT_BYTES: Final = 1 << 20
"""Of ours, before a sender waits: the next page is made while the kernel takes this one."""
RING_POLL_SECONDS: Final = 0.0005
"""A full ring means that the reader is behind by all of it; nothing tells us when it has moved on."""


class Channel(asyncio.BufferedProtocol):
    """One connection of the kv port. Sends whole messages, receives a message and then, if wanted, its payload.

    One task receives. It may be cancelled only together with the connection: what it had of a message is lost.
    """

    def __init__(self, opened: Callable[[Channel], None] = lambda channel: None) -> None:
        """`opened` is called when the connection stands."""
        self.ring_in: Ring | None = None
        self.ring_out: Ring | None = None
        self.heard = True
        """Set by whatever comes; cleared by the heartbeat."""
        self._opened = opened
        self._transport: asyncio.Transport | None = None
        self._payload_left = 0
        self._in_ring = False
        self._held = memoryview(bytearray(HELD_BYTES))
        self._start = self._end = 0
        self._target: memoryview | None = None
        self._filled = 0
        self._reading = True
        self._over: tuple[type[Exception], str] | None = None
        """Why nothing more comes. Not an exception: that would hold all that its raiser held."""
        self._lost = False
        self._come: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._full = False

    @classmethod
    async def connect(cls, host: str, port: int) -> Channel:
        """Raises OSError."""
        _, channel = await asyncio.get_running_loop().create_connection(cls, host, port)
        return channel

    # --- called by the event loop -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = transport  # type: ignore[assignment]
        set_no_delay(transport)
        transport.set_write_buffer_limits(UNSENT_BYTES)  # type: ignore[attr-defined]
        self._opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the loop: where the next bytes go."""
        if self._target is not None:
            return self._target[self._filled :]
        if self._start:  # to the front
            left = bytes(self._held[self._start : self._end])
            self._held[: len(left)] = left
            self._start, self._end = 0, len(left)
        return self._held[self._end :]

    def buffer_updated(self, count: int) -> None:
        """Called by the loop."""
        self.heard = True
        if self._target is not None:
            self._filled += count
            if self._filled == len(self._target):
                self._target = None  # what follows it is held back again
                self._wake()
            return
        self._end += count
        if self._end == len(self._held):
            self._listen(False)  # until some of it is taken
        self._wake()

    def eof_received(self) -> bool:
        """Called by the loop. What we have to say still goes out."""
        self._finish(EOFError, "the peer closed the connection")
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._lost = True
        self._finish(ConnectionResetError if error else EOFError, str(error or "the connection was closed"))
        self.resume_writing()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._full = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # --- sending ----------------------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """Address of the other side, for logs."""
        return str(self._transport.get_extra_info("peername")) if self._transport is not None else "nobody"

    @property
    def transport(self) -> str:
        """How payloads go."""
        return "shm" if self.ring_in or self.ring_out else "tcp"

    def send(self, message: kv.Message) -> None:
        """Queues a message without payload; never waits. Nothing happens on a closed connection."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(kv.encode(message)))

    async def send_payload(self, message: kv.Frame | kv.Block, payload: Payload) -> None:
        """Waits while the peer reads slower than we write. Raises OSError when the connection is lost."""
        ring = self.ring_out
        if ring is not None and len(payload) <= ring.size_bytes:
            while not ring.has_room(len(payload)):
                self._open_transport()
                await asyncio.sleep(RING_POLL_SECONDS)
            ring.write(payload)  # no wait between this and the next line: the messages say the order in the ring
            self.send(message)
        else:
            transport = self._open_transport()
            transport.write(pack(kv.encode(message), len(payload)))
            transport.write(payload)
        while self._full:
            self._open_transport()
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self._open_transport()

    def _open_transport(self) -> asyncio.Transport:
        if self._transport is None or self._lost or self._transport.is_closing():
            raise ConnectionResetError("the connection was closed")
        return self._transport

    def close(self) -> None:
        """What was queued is still sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """At once, for a peer that no longer reads."""
        if self._transport is not None:
            self._transport.abort()

    # --- receiving --------------------------------------------------------------------------------------------

    async def receive(self, max_control_bytes: int = MAX_CONTROL_BYTES) -> kv.Message:
        """The next message; an untaken payload is thrown away first. Raises FrameError, or EOFError at the end."""
        await self.discard()
        control_bytes, payload_bytes = PREFIX.unpack(await self._take(PREFIX.size))
        check_lengths(control_bytes, payload_bytes, max_control_bytes)
        message = kv.decode(bytes(await self._take(control_bytes)))
        expected = message.len if isinstance(message, kv.Frame | kv.Block) else 0
        ring = self.ring_in
        self._in_ring = ring is not None and payload_bytes == 0 and 0 < expected <= ring.size_bytes
        if payload_bytes != expected and not self._in_ring:
            name = type(message).__name__
            raise FrameError(f"{name} announces {expected} bytes of payload, its frame {payload_bytes}")
        self._payload_left = expected
        return message

    async def payload(self) -> Payload:
        """Payload of the last message, received now."""
        size, self._payload_left = self._payload_left, 0
        if self._in_ring and self.ring_in is not None:
            return self.ring_in.read(size)
        return await self._take(size)

    async def discard(self) -> None:
        """Throws the last message's payload away, in pieces, without keeping it."""
        if self._in_ring and self.ring_in is not None:
            self.ring_in.skip(self._payload_left)
            self._payload_left = 0
        while self._payload_left:
            self._payload_left -= len(await self._take(min(self._payload_left, HELD_BYTES)))

    async def _take(self, count: int) -> Payload:
        """The next bytes. Raises EOFError, or OSError when the connection broke."""
        pieces = []
        while True:
            size = min(count, PIECE_BYTES)
            pieces.append(await self._take_piece(size))
            count -= size
            if not count:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _take_piece(self, count: int) -> Payload:
        known = min(count, self._end - self._start)
        if known == count:
            piece = bytes(self._held[self._start : self._start + count])
            self._drop(known)
            return piece
        memory = bytearray(count)
        target = memoryview(memory)
        target[:known] = self._held[self._start : self._start + known]
        self._target, self._filled = target, known
        self._drop(known)
        while self._target is target:
            if self._over is not None:
                raise self._over[0](self._over[1])
            self._come = asyncio.get_running_loop().create_future()
            await self._come
        return memory

    def _drop(self, count: int) -> None:
        self._start += count
        self._listen(True)

    def _listen(self, reading: bool) -> None:
        if self._transport is not None and reading != self._reading and not self._transport.is_closing():
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _finish(self, kind: type[Exception], words: str) -> None:
        if self._over is None:
            self._over = kind, words
        self._wake()

    def _wake(self) -> None:
        if self._come is not None and not self._come.done():
            self._come.set_result(None)


def set_no_delay(transport: asyncio.BaseTransport | asyncio.StreamWriter) -> None:
    """Small messages leave at once."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
