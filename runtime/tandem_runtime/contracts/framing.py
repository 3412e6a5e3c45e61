"""Frames on the internal and kv ports: two big-endian u32 lengths, a MessagePack control message, a raw payload.

The receiver decodes the control message before it takes the payload, so a stale page never touches memory.
"""

from __future__ import annotations

import struct
from typing import Final

PREFIX: Final = struct.Struct("!II")
MAX_CONTROL_BYTES: Final = 16 << 20
"""A prompt of a million token ids fits five times over."""
MAX_HELLO_BYTES: Final = 64 << 10
"""Of the first message of a connection: who has not said the token yet gets no more memory than that."""
MAX_PAYLOAD_BYTES: Final = 64 << 20


class FrameError(ValueError):
    """The peer does not speak this protocol, or says a length beyond the limits; the connection must be closed."""


def pack(control: bytes, payload_bytes: int = 0) -> bytes:
    """Prefix and control message as one byte string; the caller sends `payload_bytes` raw bytes right after it."""
    check_lengths(len(control), payload_bytes)
    return PREFIX.pack(len(control), payload_bytes) + control


def check_lengths(control_bytes: int, payload_bytes: int, max_control_bytes: int = MAX_CONTROL_BYTES) -> None:
    """Raises FrameError when either length is beyond its limit or the control message is empty."""
    if not 0 < control_bytes <= max_control_bytes:
        raise FrameError(f"control message of {control_bytes} bytes; allowed are 1 to {max_control_bytes}")
    if payload_bytes > MAX_PAYLOAD_BYTES:
        raise FrameError(f"payload of {payload_bytes} bytes; allowed are at most {MAX_PAYLOAD_BYTES}")
