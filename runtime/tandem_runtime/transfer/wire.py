"""Messages and payloads of one kv connection, with the rule that a message is decoded before its payload is received.

Payloads come inline (TCP) or through a ring in shared memory; whoever uses a channel does not see which.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Callable
from dataclasses import dataclass, fields

import google_crc32c

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import MAX_CONTROL_BYTES, PREFIX, FrameError, check_lengths, pack
from tandem_runtime.transfer.ring import Ring

READ_LIMIT_BYTES = 1 << 20
DISCARD_BYTES = 1 << 16
RING_POLL_SECONDS = 0.0005
"""A full ring means that the reader is behind by all of it; nothing tells us when it has moved on."""
HELLO_SECONDS = 5.0
"""A connection that has not said who it is by then is closed."""
LOOKS_PER_BEAT = 4
"""How finely silence is measured: a peer is lost at most a quarter beat late."""


@dataclass(slots=True)
class TransferStats:
    """Cumulative since start, both directions."""

    tx_bytes: int = 0
    rx_bytes: int = 0
    tx_frames: int = 0
    rx_frames: int = 0
    frames_stale: int = 0
    crc_errors: int = 0
    nacks: int = 0
    resent_pages: int = 0
    rejects: int = 0
    bad_frames: int = 0
    busy: int = 0
    aborts: int = 0
    expired: int = 0
    retries: int = 0
    peers_lost: int = 0
    fallbacks: int = 0
    completed: int = 0
    probes_failed: int = 0

    def items(self) -> list[tuple[str, int]]:
        """Names and values, for metrics."""
        return [(f.name, getattr(self, f.name)) for f in fields(self)]


def checksum(payload: bytes) -> int:
    """CRC-32C."""
    return int(google_crc32c.value(payload))


def frame_checksum(frame: kv.Frame, payload: bytes) -> int:
    """Over the payload and what the header says of it: a header that was damaged on the way must not lead a good
    payload to another page of the same request."""
    place = f"{frame.req} {frame.attempt} {frame.layer_first} {frame.layer_end} {frame.page} {frame.generation}"
    return int(google_crc32c.extend(google_crc32c.value(place.encode()), payload))


class Channel:
    """One connection of the kv port. Sends whole messages, receives a message and then, if wanted, its payload."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._payload_left = 0
        self._in_ring = False
        self.ring_in: Ring | None = None
        self.ring_out: Ring | None = None
        self.heard = True
        """Set by whatever comes; cleared by the heartbeat."""
        set_no_delay(writer)

    @property
    def peer(self) -> str:
        """Address of the other side, for logs."""
        return str(self._writer.get_extra_info("peername"))

    @property
    def transport(self) -> str:
        """How payloads go."""
        return "shm" if self.ring_in or self.ring_out else "tcp"

    def send(self, message: kv.Message) -> None:
        """Queues a message without payload; never waits. Nothing happens on a closed connection."""
        if not self._writer.is_closing():
            self._writer.write(pack(kv.encode(message)))

    async def send_payload(self, message: kv.Frame | kv.Block, payload: bytes) -> None:
        """Waits while the peer reads slower than we write. Raises OSError when the connection is lost."""
        ring = self.ring_out
        if ring is not None and len(payload) <= ring.size_bytes:
            while not ring.has_room(len(payload)):
                if self._writer.is_closing():
                    raise ConnectionResetError("the connection was closed")
                await asyncio.sleep(RING_POLL_SECONDS)
            ring.write(payload)  # no wait between this and the next line: the messages say the order in the ring
            self.send(message)
        elif not self._writer.is_closing():
            self._writer.write(pack(kv.encode(message), len(payload)))
            self._writer.write(payload)
        await self._writer.drain()

    async def receive(self, max_control_bytes: int = MAX_CONTROL_BYTES) -> kv.Message:
        """The next message; an untaken payload is thrown away first. Raises FrameError, or EOFError at the end."""
        await self.discard()
        control_bytes, payload_bytes = PREFIX.unpack(await self._reader.readexactly(PREFIX.size))
        check_lengths(control_bytes, payload_bytes, max_control_bytes)
        message = kv.decode(await self._reader.readexactly(control_bytes))
        expected = message.len if isinstance(message, kv.Frame | kv.Block) else 0
        ring = self.ring_in
        self._in_ring = ring is not None and payload_bytes == 0 and 0 < expected <= ring.size_bytes
        if payload_bytes != expected and not self._in_ring:
            name = type(message).__name__
            raise FrameError(f"{name} announces {expected} bytes of payload, its frame {payload_bytes}")
        self._payload_left = expected
        self.heard = True
        return message

    async def payload(self) -> bytes:
        """Payload of the last message, received now."""
        size, self._payload_left = self._payload_left, 0
        if self._in_ring and self.ring_in is not None:
            return self.ring_in.read(size)
        payload = await self._reader.readexactly(size)
        self.heard = True
        return payload

    async def discard(self) -> None:
        """Throws the last message's payload away, in pieces, without keeping it."""
        if self._in_ring and self.ring_in is not None:
            self.ring_in.skip(self._payload_left)
            self._payload_left = 0
        while self._payload_left:
            piece = await self._reader.readexactly(min(self._payload_left, DISCARD_BYTES))
            self._payload_left -= len(piece)

    def close(self) -> None:
        """What was queued is still sent."""
        self._writer.close()

    def abort(self) -> None:
        """At once, for a peer that no longer reads."""
        self._writer.transport.abort()


def set_no_delay(writer: asyncio.StreamWriter) -> None:
    """Small messages leave at once."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def beat(channel: Channel, ping: Callable[[], kv.Ping]) -> None:
    """Pings until the peer was silent for too long; then ends the connection. Counts looks, not time: a pause of our
    own process is one look."""
    silent = looks = 0
    while silent < kv.MISSED_HEARTBEATS * LOOKS_PER_BEAT:
        channel.heard = False
        if looks % LOOKS_PER_BEAT == 0:
            channel.send(ping())
        looks += 1
        await asyncio.sleep(kv.HEARTBEAT_SECONDS / LOOKS_PER_BEAT)
        silent = 0 if channel.heard else silent + 1
    channel.abort()


def mismatch(own: kv.Hello, peer: kv.Hello) -> str:
    """Why the two may not exchange pages; empty when they may."""
    if not hmac.compare_digest(own.token.encode(), peer.token.encode()):
        return "wrong token: both pods must belong to the same deployment"
    if own.proto != peer.proto:
        return f"protocol {peer.proto}, this pod speaks {own.proto}"
    if own.compat_hash != peer.compat_hash:
        return "different model, dtype, page layout, RoPE or KV quantisation (compat hashes differ)"
    if own.layout != peer.layout:
        return f"page layout {peer.layout}, this pod has {own.layout}"
    return "" if own.tp == peer.tp else f"tensor parallelism {peer.tp}, this pod has {own.tp}"
