"""Wrong bytes for parsers: valid messages that were cut, flipped, doubled, given giant lengths or nested deeply."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.framing import MAX_CONTROL_BYTES, MAX_PAYLOAD_BYTES, PREFIX
from tandem_runtime.contracts.sampling import Sampling

LAYOUT = kv.Layout(1, 1, 1, 32, "emulated", 512)
GREETING = kv.Hello(1, "hash", "i", "decode", "d", "secret", LAYOUT, 1 << 20, ring=kv.Ring("x", 5))
KV_MESSAGES: list[tuple[kv.Message, bytes]] = [
    (GREETING, b""),
    (kv.Prefill("r", 0, list(range(40)), Sampling(4), 0, 1000), b""),
    (kv.Ready("r", 0, 2), b""),
    (kv.Grant("r", 0, [(1, 1), (2, 1)], 0), b""),
    (kv.Frame("r", 0, "i", 0, 1, 1, 1, 512, 7), bytes(512)),
    (kv.Commit("r", 0, 40, 1, 0.0, b"h", 2), b""),
    (kv.Nack("r", 0, [1]), b""),
    (kv.Ack("r", 0), b""),
    (kv.Abort("r", 0, "why"), b""),
    (kv.Probe(1, 4096), b""),
    (kv.Block(1, 64, 0), bytes(64)),
    (kv.Ping("i", 1, 1), b""),
]
ROUTER_MESSAGES: list[wire.FromRouter] = [
    wire.RouterHello(wire.VERSION, "r", "i", "secret", "rev1"),
    wire.Submit("a", 0, list(range(40)), Sampling(4), 1000),
    wire.Cancel("a", 0),
    wire.Ping(),
]


def frame(control: bytes, payload: bytes = b"") -> bytes:
    return PREFIX.pack(len(control), len(payload)) + control + payload


def nested(depth: int, unknown_field: bool = True) -> bytes:
    """A message whose field nobody knows holds lists in lists."""
    body = b"\x91" * depth + b"\x01"
    return b"\x82\xa4type\xa4PING\xa3zzz" + body if unknown_field else body


def hostile(chance: random.Random) -> bytes:
    """Written by hand: what a random change would rarely hit."""
    return chance.choice(
        [
            frame(nested(200_000)),
            frame(nested(200_000, unknown_field=False)),
            frame(b"\x82\xa4type\xa7PREFILL\xa6tokens\xdd\xff\xff\xff\xff"),
            frame(b"\x82\xa4type\xa5GRANT\xa5pages\xdd\x0f\xff\xff\xff"),
            frame(b"\x82\xa4type\xa4PING\xa3zzz\xdf\xff\xff\xff\xff"),
            frame(b"\x82\xa4type\xa4PING\xa3zzz\xc6\xff\xff\xff\xff"),
            frame(b"\x82\xa4type\xa6submit\xa2id\xdb\xff\xff\xff\xff"),
            PREFIX.pack(MAX_CONTROL_BYTES, 0),
            PREFIX.pack(MAX_CONTROL_BYTES + 1, 0),
            PREFIX.pack(64, MAX_PAYLOAD_BYTES),
            PREFIX.pack(0, 0),
            struct.pack("!II", 0xFFFFFFFF, 0xFFFFFFFF),
            b"\xff" * 64,
        ]
    )


def spoil(chance: random.Random, frames: Sequence[bytes]) -> bytes:
    """Some of the frames in some order, with one or more changes."""
    picked = [chance.choice(frames) for _ in range(chance.randint(1, 6))]
    if chance.random() < 0.3:
        picked.insert(chance.randint(0, len(picked)), hostile(chance))
    data = bytearray(b"".join(picked))
    for _ in range(chance.randint(0, 4)):
        spot = chance.randrange(len(data)) if data else 0
        match chance.randint(0, 4):
            case 0 if data:
                data[spot] ^= 1 << chance.randint(0, 7)
            case 1:
                del data[spot:]
            case 2:
                data[spot:spot] = chance.randbytes(chance.randint(1, 9))
            case 3:
                del data[spot : spot + chance.randint(1, 9)]
            case _ if data:
                data[spot] = chance.choice((0x00, 0x7F, 0xC1, 0xDD, 0xDF, 0xFF))
    return bytes(data)


def kv_frames() -> list[bytes]:
    return [frame(kv.encode(message), payload) for message, payload in KV_MESSAGES]


def router_frames() -> list[bytes]:
    return [frame(wire.encode(message)) for message in ROUTER_MESSAGES]
