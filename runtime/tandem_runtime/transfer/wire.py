"""What both sides of a kv connection share: counters, checksums, the heartbeat, and who may talk to whom."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import dataclass, fields

from crc32c import crc32c

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.engine.events import Payload
from tandem_runtime.transfer.channel import Channel

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


def checksum(payload: Payload) -> int:
    """CRC-32C."""
    return int(crc32c(payload))


def frame_checksum(frame: kv.Frame, payload: Payload) -> int:
    """Over the payload and what the header says of it: a header that was damaged on the way must not lead a good
    payload to another page of the same request."""
    place = f"{frame.req} {frame.attempt} {frame.layer_first} {frame.layer_end} {frame.page} {frame.generation}"
    return int(crc32c(payload, crc32c(place.encode())))


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
    if own.layout.dtype != peer.layout.dtype:
        kept = f"KV kept as {peer.layout.dtype}, this pod's as {own.layout.dtype}"
        return f"{kept}: give both the same --dtype and --kv-dtype"
    if own.quantization != peer.quantization:
        held = f"weights with quantization {peer.quantization}, this pod's with {own.quantization}"
        return f"{held}: give both the same --quantization"
    if own.compat_hash != peer.compat_hash:
        return "different model, dtype, page layout, RoPE or KV quantisation (compat hashes differ)"
    if own.layout != peer.layout:
        return f"page layout {peer.layout}, this pod has {own.layout}"
    return "" if own.tp == peer.tp else f"tensor parallelism {peer.tp}, this pod has {own.tp}"
