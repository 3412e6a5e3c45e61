"""Request bodies: read within a time, and with bounds for each and for all that are held at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from tandem_runtime.openai.errors import ApiError

Parsed = TypeVar("Parsed")


class Bodies:
    """Of one front. The bytes are not kept: what is parsed lives on, for as long as its answer takes."""

    def __init__(self, max_bytes: int, max_total_bytes: int, seconds: float) -> None:
        self.held_bytes = 0
        """Of all bodies that are arriving now."""
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._seconds = seconds

    async def read(self, request: web.Request, parse: Callable[[bytes], Parsed]) -> Parsed:
        """What `parse` makes of it. Raises ApiError: 408 too slow, 413 too large, 503 too many large ones at once."""
        self._check(request.content_length or 0)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                async for part in request.content.iter_any():
                    parts.append(part)
                    size += len(part)
                    self.held_bytes += len(part)
                    self._check(size)
            return parse(parts[0] if len(parts) == 1 else b"".join(parts))
        except TimeoutError as error:
            text = f"the request body did not arrive within {self._seconds:g} s"
            raise ApiError(408, text, code="body_timeout") from error
        except web.RequestPayloadError as error:
            raise ApiError(400, f"the request body cannot be read: {error}", code="broken_body") from error
        finally:
            self.held_bytes -= size

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            text = f"the request body has {size} bytes or more; at most {self._max_bytes} are taken"
            raise ApiError(413, text, code="body_too_large")
        if self.held_bytes > self._max_total_bytes:
            text = f"large requests of {self.held_bytes} bytes are arriving already; try again in 1 s"
            raise ApiError(503, text, "server_error", code="bodies_full", retry_after_seconds=1)
