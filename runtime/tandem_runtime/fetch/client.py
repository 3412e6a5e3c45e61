"""HTTP with patience: which failures are worth another try, how long to wait, and what to tell a person."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from tandem_runtime.fetch.errors import FetchError, NotFound, Refused, Transient

Result = TypeVar("Result")

RETRIED: Final = frozenset((408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524))
MAX_SMALL_BYTES: Final = 256 << 20
"""Bound of answers that are read into memory: file lists and checksums."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to try. Defaults ride out a restart of the server (about 2 minutes), not an outage."""

    attempts: int = 8
    """Failures in a row without one new byte."""
    total_failures: int = 200
    """Failures of one file altogether: a link that breaks every few hundred MB still gets through."""
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 30.0
    connect_timeout_seconds: float = 15.0
    read_timeout_seconds: float = 60.0
    """Without any byte; a slow link is not an error."""

    def wait_seconds(self, failures: int, jitter: float) -> float:
        """Before the next try after `failures` in a row; `jitter` in [0, 1] spreads pods that started together."""
        longest = min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** (failures - 1))
        return longest * (0.5 + jitter / 2)


@dataclass(slots=True)
class Client:
    """A session, its patience and what it may tell the hub. `say` takes lines for people."""

    session: aiohttp.ClientSession
    patience: Patience
    say: Callable[[str], None]
    headers: dict[str, str] = field(default_factory=dict)
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    jitter: Callable[[], float] = random.random

    async def persist(
        self, what: str, attempt: Callable[[], Awaitable[Result]], progress_bytes: Callable[[], int] = lambda: 0
    ) -> Result:
        """Runs `attempt` until it does not raise Transient. New bytes in between start the count afresh.

        Raises FetchError with the last reason when patience ends.
        """
        failures, total, seen = 0, 0, progress_bytes()
        while True:
            try:
                return await attempt()
            except Transient as error:
                failures, total = (1 if progress_bytes() > seen else failures + 1), total + 1
                seen = max(seen, progress_bytes())
                if failures >= self.patience.attempts or total >= self.patience.total_failures:
                    tries = "1 try" if total == 1 else f"{total} tries"
                    raise FetchError(f"{what}: {error} (gave up after {tries}); run again to resume") from error
                wait = self.patience.wait_seconds(failures, self.jitter())
                if error.retry_after_seconds is not None:
                    wait = max(wait, min(error.retry_after_seconds, 2 * self.patience.longest_wait_seconds))
                self.say(f"{what}: {error}; trying again in {wait:.1f} s")
            await self.sleep(wait)

    @asynccontextmanager
    async def request(
        self, method: str, url: URL, headers: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One try. Raises Transient, NotFound or FetchError; 416 is left to the caller."""
        # identity: sizes and ranges must be those of the file
        merged = {"Accept-Encoding": "identity", **self.headers, **(headers or {})}
        try:
            async with self.session.request(method, url, headers=merged) as response:
                _check_status(response, url)
                yield response
        except aiohttp.ClientConnectorCertificateError as error:
            raise FetchError(f"{_plain(url)}: the server's certificate is not trusted: {error}") from error
        except (aiohttp.InvalidURL, aiohttp.TooManyRedirects) as error:
            raise FetchError(f"{_plain(url)}: {type(error).__name__}: {error}") from error
        except aiohttp.ClientError as error:
            raise Transient(str(error) or type(error).__name__) from error
        except (TimeoutError, ConnectionError) as error:
            raise Transient(str(error) or f"nothing came for {self.patience.read_timeout_seconds:g} s") from error

    async def read(self, url: URL) -> bytes:
        """A small answer, whole. Raises NotFound, FetchError."""

        async def attempt() -> bytes:
            async with self.request("GET", url) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_SMALL_BYTES:
                        raise FetchError(f"{_plain(url)} is larger than {MAX_SMALL_BYTES >> 20} MiB; expected a list")
                return bytes(body)

        return await self.persist(_plain(url), attempt)

    async def probe(self, url: URL) -> Probe:
        """What the server says of a file without sending it. Raises NotFound, FetchError."""

        async def attempt() -> Probe:
            try:
                async with self.request("HEAD", url) as response:
                    return Probe(response.content_length, read_validator(response))
            except _MethodRefused:
                async with self.request("GET", url) as response:
                    response.close()
                    return Probe(response.content_length, read_validator(response))

        return await self.persist(_plain(url), attempt)


@dataclass(frozen=True, slots=True)
class Probe:
    """Size in bytes and validator, as far as the server says them."""

    size_bytes: int | None
    validator: str | None


def read_validator(response: aiohttp.ClientResponse) -> str | None:
    """What If-Range takes: a strong ETag, else Last-Modified."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


class _MethodRefused(FetchError):
    """405 or 501: the server knows no HEAD."""


def _plain(url: URL) -> str:
    return str(url.with_user(None))


def _check_status(response: aiohttp.ClientResponse, url: URL) -> None:
    status = response.status
    if status in (200, 206, 416):
        return
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "unknown"
    detail = response.headers.get("X-Error-Message", "").strip()
    answer = f"{_plain(url)} answers {status} {phrase}" + (f" ({detail})" if detail else "")
    if status in RETRIED:
        wait = response.headers.get("Retry-After", "")
        raise Transient(f"{status} {phrase}", float(wait) if wait.isdigit() else None)
    if status in (404, 410):
        raise NotFound(f"{answer}; check the spelling of repository or folder, and of the revision")
    if status in (401, 403):
        raise Refused(
            f"{answer}; if the model is gated or private, accept its terms with your account "
            "and set HF_TOKEN to a token of it; else check the name"
        )
    if status in (405, 501):
        raise _MethodRefused(answer)
    raise FetchError(answer)


def open_session(patience: Patience) -> aiohttp.ClientSession:
    """Timeouts per connection and read, none for the whole; proxies as in the environment."""
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=patience.connect_timeout_seconds, sock_read=patience.read_timeout_seconds
    )
    return aiohttp.ClientSession(timeout=timeout, trust_env=True, read_bufsize=4 << 20, auto_decompress=False)
