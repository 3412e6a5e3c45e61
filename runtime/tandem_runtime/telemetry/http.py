"""A few lines of HTTP for probes, scrapes and small orders: GET and POST, one answer per connection.

A pod's metrics port needs no more, and an HTTP framework would double an emulated pod's start-up time and memory.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

log = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0
REQUEST_BYTES = 1 << 16
"""Of the head, and of the body: what is ordered here takes a line."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, content type and body."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


def text(status: int, words: str) -> Answer:
    """A line of plain text."""
    return Answer(status, f"{words}\n".encode())


def as_json(value: Any, status: int = 200) -> Answer:
    """A JSON document."""
    return Answer(status, json.dumps(value).encode(), "application/json")


@dataclass(frozen=True, slots=True)
class Order:
    """A POST: names of headers are lower case."""

    headers: Mapping[str, str]
    body: bytes


def refuse_stranger(order: Order, token: str) -> Answer | None:
    """401 for who does not say the deployment's token; None when it does. Without a token nobody may order anything."""
    scheme, _, given = order.headers.get("authorization", "").partition(" ")
    if token and scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return None
    return text(401, "say the token of the deployment: Authorization: Bearer TOKEN")


Route = Callable[[], Answer]
OrderRoute = Callable[[Order], Answer]


class MetricsServer:
    """Serves `routes` (GET) and `orders` (POST), path to a function that answers at once."""

    def __init__(self, routes: Mapping[str, Route], orders: Mapping[str, OrderRoute] | None = None) -> None:
        self._routes = routes
        self._orders = orders or {}
        self._server: asyncio.Server | None = None

    async def start(self, bind: str, port: int) -> int:
        """The port that it listens on."""
        self._server = await asyncio.start_server(self._serve, bind, port, limit=REQUEST_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Closes the port."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            answer = self._answer(head) if not head.startswith(b"POST ") else await self._take(head, reader)
            phrase = HTTPStatus(answer.status).phrase
            writer.write(
                f"HTTP/1.1 {answer.status} {phrase}\r\nContent-Type: {answer.content_type}\r\n"
                f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n".encode()
                + answer.body
            )
            async with asyncio.timeout(REQUEST_SECONDS):
                await writer.drain()
        except TimeoutError:
            writer.transport.abort()  # neither what it asks nor what it does not read may stay in memory
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone or does not speak HTTP
        except asyncio.CancelledError:
            pass  # the event loop ends; asyncio would log a traceback as the last words of the process
        finally:
            writer.close()

    def _answer(self, head: bytes) -> Answer:
        parts = head.split(b"\r\n", 1)[0].split()
        if len(parts) != 3:
            return text(400, "not an HTTP request")
        method, path = parts[0], parts[1].split(b"?")[0].decode(errors="replace")
        if method != b"GET" or path in self._orders:
            return text(405, "POST only" if path in self._orders else "GET only")
        route = self._routes.get(path)
        if route is None:
            return text(404, f"no such path; there are {', '.join(self._routes)}")
        return _call(f"GET {path}", route)

    async def _take(self, head: bytes, reader: asyncio.StreamReader) -> Answer:
        first, *lines = head.decode("latin-1").split("\r\n")
        parts = first.split()
        if len(parts) != 3:
            return text(400, "not an HTTP request")
        path = parts[1].split("?")[0]
        if path not in self._orders:
            if path in self._routes or not self._orders:
                return text(405, "GET only")
            return text(404, f"no such path; POST goes to {', '.join(self._orders)}")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit() and int(length[:9]) <= REQUEST_BYTES and len(length) < 9):
            return text(411 if not length else 413, f"send a body with Content-Length of at most {REQUEST_BYTES}")
        async with asyncio.timeout(REQUEST_SECONDS):
            body = await reader.readexactly(int(length))
        return _call(f"POST {path}", lambda: self._orders[path](Order(headers, body)))


def _call(what: str, route: Route) -> Answer:
    """503 instead of a connection that breaks."""
    try:
        return route()
    except Exception as error:
        log.exception("%s failed", what)
        return text(503, f"{type(error).__name__}: {error}")
