"""One HTTP connection to the server under load: as little work per packet as can be, so that one core drives thousands.

Server-sent events are not parsed: their arrival is noted, and the token count is read from the usage at the end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tandem_runtime.bench.schedule import Due

USAGE: Final = re.compile(rb'"completion_tokens":\s*(\d+)')
REASON: Final = re.compile(rb"(?im)^x-tandem-reason:\s*([^\r\n]*)")
LENGTH: Final = re.compile(rb"(?im)^content-length:\s*(\d+)")
CLOSE: Final = re.compile(rb"(?im)^connection:\s*close")
CHUNKS_END: Final = b"\r\n0\r\n\r\n"
KEPT_BYTES: Final = 1024
"""Of the end of an answer: usage and [DONE] stand there."""
HEAD_BYTES: Final = 65_536
LOST: Final = 599
"""Status of a request whose connection broke."""


@dataclass(slots=True)
class Exchange:
    """One request and its answer. Times are of the monotonic clock; `due_at` is when it should have been sent."""

    due: Due
    due_at: float
    sent_at: float = 0.0
    first_at: float | None = None
    last_at: float | None = None
    ended_at: float = 0.0
    status: int = 0
    reason: str = ""
    output_tokens: int = 0
    complete: bool = False
    """The stream ended as it should, with [DONE]."""


class Connection(asyncio.Protocol):
    """One request at a time. `ended` is called once for each; `free` is whether the next may follow on it."""

    def __init__(self, clock: Callable[[], float], ended: Callable[[Connection, Exchange], None]) -> None:
        self.exchange: Exchange | None = None
        self.free = False
        self._clock = clock
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._in_head = True
        self._left_bytes: int | None = None
        self._events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = transport  # type: ignore[assignment]
        self.free = True

    def send(self, request: bytes, exchange: Exchange) -> None:
        """The answer comes through `ended`."""
        assert self._transport is not None
        self.exchange, self.free = exchange, False
        self._buffer, self._in_head, self._left_bytes, self._events = b"", True, None, 0
        exchange.sent_at = self._clock()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        exchange = self.exchange
        if exchange is None:
            return
        if self._in_head:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > HEAD_BYTES:
                    self.close()
                return
            head, data = self._buffer[:end], self._buffer[end + 4 :]
            self._read_head(exchange, head)
        if self._left_bytes is None:
            self._read_events(exchange, data)
        else:
            self._left_bytes -= len(data)
            self._buffer = (self._buffer + data)[-KEPT_BYTES:]
            if self._left_bytes <= 0:
                self._end()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self.free = False
        if self.exchange is not None:
            self.exchange.status = self.exchange.status if self.exchange.status >= 400 else LOST
            self.exchange.reason = self.exchange.reason or "connection lost"
            self._end()

    def close(self, why: str = "") -> None:
        """Gives up what is under way."""
        if self.exchange is not None and why:
            self.exchange.status, self.exchange.reason, self.exchange.complete = LOST, why, False
            self._end()
        if self._transport is not None:
            self._transport.abort()

    def _read_head(self, exchange: Exchange, head: bytes) -> None:
        exchange.status = int(head[9:12])
        if (reason := REASON.search(head)) is not None:
            exchange.reason = reason[1].decode(errors="replace")
        if (length := LENGTH.search(head)) is not None:
            self._left_bytes = int(length[1])
        self._closes = CLOSE.search(head) is not None
        self._in_head, self._buffer = False, b""

    def _read_events(self, exchange: Exchange, data: bytes) -> None:
        now = self._clock()
        if exchange.first_at is None and b"data:" in data:
            exchange.first_at = now
        if b'"text":' in data or b'"content":' in data:
            exchange.last_at = now
            self._events += data.count(b'"text":') + data.count(b'"content":')
        self._buffer = (self._buffer + data)[-KEPT_BYTES:]
        if self._buffer.endswith(CHUNKS_END):
            exchange.complete = b"data: [DONE]" in self._buffer
            usage = USAGE.search(self._buffer)
            exchange.output_tokens = int(usage[1]) if usage else self._events
            self._end()

    def _end(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        exchange.ended_at = self._clock()
        self.free = self._transport is not None and not self._transport.is_closing() and not self._closes
        self._ended(self, exchange)

    _closes = False
