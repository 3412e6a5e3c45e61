"""Frames of the internal port from a byte stream; they carry no payload."""

from __future__ import annotations

from collections.abc import Iterator

from tandem_runtime.contracts.framing import PREFIX, FrameError, check_lengths


class FrameParser:
    """Feed it what arrives, in any pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Control messages that are complete now. Raises FrameError; the connection must be closed then."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= PREFIX.size:
            control_bytes, payload_bytes = PREFIX.unpack_from(self._buffer, start)
            check_lengths(control_bytes, payload_bytes)
            if payload_bytes:
                raise FrameError(f"payload of {payload_bytes} bytes on the internal port, which has none")
            end = start + PREFIX.size + control_bytes
            if len(self._buffer) < end:
                break
            yield bytes(self._buffer[start + PREFIX.size : end])
            start = end
        if start:
            del self._buffer[:start]
