"""Frames over asyncio streams, with the rule that a control message is decoded before its payload is received."""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Callable
from dataclasses import dataclass, fields

import google_crc32c
import msgspec

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import MAX_CONTROL_BYTES, PREFIX, FrameError, check_lengths, pack

READ_LIMIT_BYTES = 1 << 20
DISCARD_BYTES = 1 << 16
HELLO_SECONDS = 5.0
"""A connection that has not said who it is by then is closed."""


@dataclass(slots=True)
class TransferStats:
    """Cumulative since start, both directions."""

    tx_bytes: int = 0
    rx_bytes: int = 0
    tx_frames: int = 0
    rx_frames: int = 0
    frames_stale: int = 0
    crc_errors: int = 0
    rejects: int = 0
    bad_frames: int = 0
    busy: int = 0
    aborts: int = 0
    peers_lost: int = 0
    fallbacks: int = 0
    completed: int = 0

    def items(self) -> list[tuple[str, int]]:
        """Names and values, for metrics."""
        return [(f.name, getattr(self, f.name)) for f in fields(self)]


def checksum(payload: bytes) -> int:
    """CRC-32C."""
    return int(google_crc32c.value(payload))


class Channel:
    """One connection of the kv port. Sends whole messages, receives a message and then, if wanted, its payload."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._payload_left = 0
        self.heard = True
        """Set by whatever comes; cleared by the heartbeat."""
        set_no_delay(writer)

    @property
    def peer(self) -> str:
        """Address of the other side, for logs."""
        return str(self._writer.get_extra_info("peername"))

    def send(self, message: kv.Message, payload: bytes = b"") -> None:
        """Queues a message; never waits. Nothing happens on a closed connection."""
        if not self._writer.is_closing():
            self._writer.write(pack(kv.encode(message), len(payload)))
            if payload:
                self._writer.write(payload)

    async def drain(self) -> None:
        """Waits while the peer reads slower than we write."""
        await self._writer.drain()

    async def receive(self, max_control_bytes: int = MAX_CONTROL_BYTES) -> kv.Message:
        """The next message; an untaken payload is thrown away first. Raises FrameError, or EOFError at the end."""
        await self.discard()
        try:
            control_bytes, payload_bytes = PREFIX.unpack(await self._reader.readexactly(PREFIX.size))
            check_lengths(control_bytes, payload_bytes, max_control_bytes)
            message: kv.Message = kv.decode(await self._reader.readexactly(control_bytes))
        except msgspec.DecodeError as error:
            raise FrameError(f"not a message of this protocol: {error}") from error
        expected = message.len if isinstance(message, kv.Frame) else 0
        if payload_bytes != expected:
            name = type(message).__name__
            raise FrameError(f"{name} announces {expected} bytes of payload, its frame {payload_bytes}")
        self._payload_left = payload_bytes
        self.heard = True
        return message

    async def payload(self) -> bytes:
        """Payload of the last message, received now."""
        size, self._payload_left = self._payload_left, 0
        payload = await self._reader.readexactly(size)
        self.heard = True
        return payload

    async def discard(self) -> None:
        """Throws the last message's payload away, in pieces, without keeping it."""
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
    """Pings until the peer was silent for too many beats; then ends the connection. Counts beats, not time: a pause
    of our own process is one beat."""
    silent = 0
    while silent < kv.MISSED_HEARTBEATS:
        channel.heard = False
        channel.send(ping())
        await asyncio.sleep(kv.HEARTBEAT_SECONDS)
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
