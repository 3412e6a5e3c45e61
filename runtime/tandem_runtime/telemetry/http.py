"""A few lines of HTTP for probes and scrapes: GET only, one answer per connection.

A pod's metrics port needs no more, and an HTTP framework would double an emulated pod's start-up time and memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0
REQUEST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, content type and body."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


def text(status: int, words: str) -> Answer:
    """A line of plain text."""
    return Answer(status, f"{words}\n".encode())


def as_json(value: Any) -> Answer:
    """A JSON document."""
    return Answer(200, json.dumps(value).encode(), "application/json")


Route = Callable[[], Answer]
PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class MetricsServer:
    """Serves `routes`, path to a function that answers at once."""

    def __init__(self, routes: dict[str, Route]) -> None:
        self._routes = routes
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
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_SECONDS)
            answer = self._answer(head)
            phrase = PHRASES.get(answer.status, "")
            writer.write(
                f"HTTP/1.1 {answer.status} {phrase}\r\nContent-Type: {answer.content_type}\r\n"
                f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n".encode()
                + answer.body
            )
            await asyncio.wait_for(writer.drain(), REQUEST_SECONDS)
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
        if method != b"GET":
            return text(405, "GET only")
        route = self._routes.get(path)
        if route is None:
            return text(404, f"no such path; there are {', '.join(self._routes)}")
        try:
            return route()
        except Exception as error:
            log.exception("GET %s failed", path)
            return text(503, f"{type(error).__name__}: {error}")
