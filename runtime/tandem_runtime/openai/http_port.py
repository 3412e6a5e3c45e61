"""The port that clients connect to: aiohttp behind bounds of its own, so that what clients do wrong costs little.

Idle, half-open and half-said connections end after a time; heads, headers and connections are counted.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

log = logging.getLogger(__name__)

HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: 128\r\n\r\n"
    + b'{"error":{"message":"the headers of the request are too large","type":"invalid_request_error",'
    b'"code":"headers_too_large"}}'.ljust(128)
)
BACKLOG: Final = 1024
"""Connections that the kernel keeps until they are accepted: a whole fleet of clients may come back at once."""


@dataclass(frozen=True, slots=True)
class PortLimits:
    """Bounds of one port, each with its reason."""

    connections: int = 16_384
    """About 20 KB each. One more is closed at once: better than to run out of files for the pods' connections."""
    idle_seconds: float = 75.0
    """Without a request, or with one whose head does not end: longer than the 60 s of usual proxies in front."""
    head_bytes: int = 64 << 10
    """Of one request's line and headers together; each line by itself is bounded by aiohttp (8 KB)."""
    headers: int = 100
    stalled_seconds: float = 120.0
    """Data that the other side does not take for so long ends the connection: it is dead, or does not read."""
    unsent_bytes: int = 128 << 10
    """That the kernel takes for a client which does not read; without it, it would be megabytes."""


@dataclass
class PortCounts:
    """What was refused, for the metrics."""

    open: int = 0
    refused: int = 0
    """Connections beyond the limit."""
    large_heads: int = 0


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_counted", "_counts", "_head_bytes", "_limits")

    def __init__(self, server: web.Server, limits: PortLimits, counts: PortCounts) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_seconds,
            max_headers=limits.headers,
            access_log=None,  # type: ignore[arg-type]
        )
        self._limits, self._counts = limits, counts
        self._head_bytes = 0
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        if self._counts.open >= self._limits.connections:
            self._counts.refused += 1
            transport.abort()  # type: ignore[attr-defined]
        self._counts.open += 1
        self._counted = True
        bound_waits(transport, self._limits)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the loop."""
        if self._counted:
            self._counts.open -= 1
            self._counted = False
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the loop. Bytes that begin no request yet are counted: they are a head, and held."""
        known = self._request_count
        super().data_received(data)
        if self._request_in_progress or self._request_count != known:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > self._limits.head_bytes and self.transport is not None:
            self._counts.large_heads += 1
            self.transport.write(HEAD_TOO_LARGE)
            self.force_close()


def bound_waits(transport: asyncio.BaseTransport, limits: PortLimits) -> None:
    """Where the system has it (Linux); else the timeout of the request ends it."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * limits.stalled_seconds))
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limits.unsent_bytes)


@dataclass
class HttpPort:
    """`start`, then `stop_listening` when it drains, then `close`."""

    application: web.Application
    limits: PortLimits = field(default_factory=PortLimits)
    close_seconds: float = 5.0
    """For answers that are complete but not read yet."""
    counts: PortCounts = field(default_factory=PortCounts)

    def __post_init__(self) -> None:
        # A client that leaves cancels its request.
        self._runner = web.AppRunner(self.application, handler_cancellation=True, shutdown_timeout=self.close_seconds)
        self._server: asyncio.Server | None = None

    @property
    def listens(self) -> bool:
        """Between `start` and `stop_listening`."""
        return self._server is not None

    async def start(self, bind: str, port: int) -> int:
        """The port that it listens on. Raises OSError when it is taken."""
        # What it would say of every malformed request quotes what the client sent; our own errors are caught above.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        raise_file_limit()
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(server, self.limits, self.counts), bind, port, backlog=BACKLOG, reuse_address=True
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop_listening(self) -> None:
        """Connections that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Waits a little for answers that are being written, then closes everything."""
        await self.stop_listening()
        await self._runner.cleanup()


def raise_file_limit() -> None:
    """Each connection is a file, and the default of many systems is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
