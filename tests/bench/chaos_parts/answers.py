"""A client that knows the right answer: streams one completion and says whether what came is it, whole, and when."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["exact", "wrong", "lost", "hung", "broken"]
MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `ignore_eos` keeps answers long enough to be disturbed."""

    prompt: str
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop: str = ""
    stream: bool = True

    def body(self, model: str, stream: bool) -> bytes:
        """JSON."""
        fields: dict[str, Any] = {
            "model": model,
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "ignore_eos": True,
            "stream": stream,
        }
        if self.stop:
            fields["stop"] = [self.stop]
        if stream:
            fields["stream_options"] = {"include_usage": True}
        return json.dumps(fields).encode()


@dataclass(frozen=True, slots=True)
class Right:
    """What an undisturbed pod answers, and how long it took to begin."""

    text: str
    tokens: int
    reason: str
    ttft_seconds: float
    whole_seconds: float = 0.0
    """From the request to its end, together with all the others."""


@dataclass(slots=True)
class Reading:
    """What one client saw. Times are of the monotonic clock."""

    ask: Ask
    sent_at: float
    status: int = 0
    text: str = ""
    tokens: int = 0
    reason: str = ""
    arrivals: list[float] = field(default_factory=list)
    """When text came."""
    done: bool = False
    """[DONE] was said."""
    ended: bool = False
    """The HTTP answer ended as HTTP says: last chunk, or as many bytes as announced."""
    problem: str = ""
    hung: bool = False
    seconds: float = 0.0
    """From the request to its end."""

    def judge(self, right: Right) -> Verdict:
        """`broken`: ended without looking complete, and all that came was right."""
        if self.hung:
            return "hung"
        complete = self.status == 200 and self.done and self.ended
        if complete:
            same = (self.text, self.tokens, self.reason) == (right.text, right.tokens, right.reason)
            return "exact" if same else "wrong"
        if not right.text.startswith(self.text):
            return "wrong"
        return "lost" if self.status and (self.ended or self.status != 200) else "broken"

    def pause(self, moment: float) -> tuple[float, float]:
        """(beginning, length) of the longest gap between two pieces of text that ends after `moment`."""
        points = [self.sent_at, *self.arrivals] if not self.arrivals or self.arrivals[0] > moment else self.arrivals
        gaps = [(after - before, before) for before, after in itertools.pairwise(points) if after > moment]
        seconds, began = max(gaps, default=(0.0, moment))
        return began, seconds


async def read_answer(host: str, port: int, model: str, ask: Ask, limit_seconds: float) -> Reading:
    """Never raises for what the server does."""
    reading = Reading(ask, time.monotonic())
    try:
        async with asyncio.timeout(limit_seconds):
            await _exchange(host, port, model, ask, reading)
    except TimeoutError:
        reading.hung = True
        reading.problem = f"no end within {limit_seconds:g} s; {len(reading.arrivals)} pieces came"
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        reading.problem = f"{type(error).__name__}: {error}"
    reading.seconds = time.monotonic() - reading.sent_at
    return reading


async def _exchange(host: str, port: int, model: str, ask: Ask, reading: Reading) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_LINE_BYTES)
    try:
        body = ask.body(model, ask.stream)
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"x-tandem-timeout-ms: 600000\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        reading.status = int(lines[0].split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if headers.get("transfer-encoding", "") == "chunked":
            await _read_events(reader, reading)
        else:
            answer = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))))
            reading.ended = True
            _take_whole(answer, headers.get("x-tandem-reason", ""), reading)
    finally:
        writer.close()


async def _read_events(reader: asyncio.StreamReader, reading: Reading) -> None:
    held = b""
    while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
        held += (await reader.readexactly(size + 2))[:-2]
        *events, held = held.split(b"\n\n")
        for event in events:
            _take_event(event.removeprefix(b"data: "), reading)
    await reader.readexactly(2)
    reading.ended = True


def _take_event(event: bytes, reading: Reading) -> None:
    if event == b"[DONE]":
        reading.done = True
        return
    if not event.startswith(b"{"):
        return  # a comment that keeps the connection alive
    chunk = json.loads(event)
    if "error" in chunk:
        reading.problem = f"{chunk['error'].get('code')}: {chunk['error'].get('message')}"
        return
    for choice in chunk["choices"]:
        if choice.get("text"):
            reading.text += choice["text"]
            reading.arrivals.append(time.monotonic())
        reading.reason = choice.get("finish_reason") or reading.reason
    if chunk.get("usage"):
        reading.tokens = chunk["usage"]["completion_tokens"]


def _take_whole(answer: Any, reason: str, reading: Reading) -> None:
    if reading.status != 200:
        reading.problem = f"{reading.status} {reason}: {answer.get('error', {}).get('message')}"
        return
    choice = answer["choices"][0]
    reading.text, reading.reason = choice["text"], choice["finish_reason"]
    reading.tokens = answer["usage"]["completion_tokens"]
    reading.done = True


async def get(host: str, port: int, path: str, limit_seconds: float = 2.0) -> tuple[int, str]:
    """Status and body of a GET; status 0 when nobody answers."""
    return await _ask_once(
        host, port, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", limit_seconds
    )


async def post(host: str, port: int, path: str, token: str, body: str, limit_seconds: float = 2.0) -> tuple[int, str]:
    """The same of an order that needs the deployment's token."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}"
    return await _ask_once(host, port, f"{head}\r\n\r\n{body}", limit_seconds)


async def _ask_once(host: str, port: int, request: str, limit_seconds: float) -> tuple[int, str]:
    try:
        async with asyncio.timeout(limit_seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request.encode())
                answer = (await reader.read()).decode()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0, ""
    head, _, body = answer.partition("\r\n\r\n")
    words = head.split()
    return (int(words[1]) if len(words) > 1 else 0), body
