"""Clients as they come: short and long, many choices, stop strings, those that leave, those that send rubbish."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from random import Random
from typing import Any, Final

import aiohttp

SYSTEM: Final = "You are a fox that keeps the golden lantern under the bridge and answers in short sentences. " * 4
"""What many conversations begin with: their prefix is computed once."""
WORDS: Final = ("fox", "lantern", "bridge", "golden", "under", "the", "that", "keeps", "river", "stone", "story")
GOOD: Final = ("chat", "stream", "complete", "choices", "stop", "long", "shared", "leave", "leave_early")
BAD: Final = ("rubbish", "other_model", "too_long", "wrong_field", "empty")
FULL: Final = (429, 503)
"""Honest refusals of a pod that is full."""


class Client:
    """Sends one request after another until `until`; every outcome is counted, what must not be is kept in words."""

    def __init__(self, url: str, seed: int, context_tokens: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.problems: list[str] = []
        self._url, self._random, self._context_tokens = url, Random(seed), context_tokens

    async def run(self, session: aiohttp.ClientSession, until: float) -> None:
        """Time is the event loop's."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            kind = self._random.choice(BAD if self._random.random() < 0.15 else GOOD)
            try:
                async with asyncio.timeout(120):
                    await getattr(self, f"_{'bad' if kind in BAD else 'good'}")(session, kind)
            except TimeoutError:
                self._complain(kind, "no end within 120 s")
            except (aiohttp.ClientError, ValueError, KeyError) as error:
                self._complain(kind, f"{type(error).__name__}: {error}")

    def _complain(self, kind: str, what: str) -> None:
        self.outcomes["problem"] += 1
        self.problems.append(f"{kind}: {what}"[:200])

    def _text(self, words: int) -> str:
        return " ".join(self._random.choice(WORDS) for _ in range(words))

    def _body(self, kind: str) -> tuple[str, dict[str, Any]]:
        words = {"long": self._random.randint(60, 110)}.get(kind, self._random.randint(1, 30))
        text = self._text(words)
        body: dict[str, Any] = {"model": "soak", "max_tokens": self._random.choice((1, 4, 16, 16, 64, 200))}
        body["temperature"] = self._random.choice((0, 0.7, 1.3))
        if kind in ("complete", "choices", "long"):
            if kind == "choices":
                body["n"] = self._random.randint(2, 4)
            return "/v1/completions", body | {"prompt": text}
        if kind == "stop":
            body["stop"] = ["e", "the "]
        if kind in ("stream", "leave", "leave_early", "shared"):
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        messages = [{"role": "system", "content": SYSTEM}] if kind in ("shared", "leave") else []
        return "/v1/chat/completions", body | {"messages": [*messages, {"role": "user", "content": text}]}

    async def _good(self, session: aiohttp.ClientSession, kind: str) -> None:
        path, body = self._body(kind)
        async with session.post(self._url + path, json=body) as response:
            if response.status in FULL:
                self.outcomes["full"] += 1
                await asyncio.sleep(0.05)
                return
            if response.status != 200:
                self._complain(kind, f"status {response.status}: {(await response.text())[:100]}")
            elif kind == "leave_early":
                self.outcomes["left"] += 1
            elif body.get("stream"):
                await self._read_stream(response, kind, self._random.randint(1, 6) if kind == "leave" else 1 << 30)
            else:
                answer = await response.json()
                if len(answer["choices"]) != body.get("n", 1) or not answer["usage"]["completion_tokens"]:
                    self._complain(kind, f"answer {str(answer)[:100]}")
                self.outcomes["answered"] += 1

    async def _read_stream(self, response: aiohttp.ClientResponse, kind: str, most: int) -> None:
        last = b""
        async for line in response.content:
            if line.startswith(b"data: "):
                last, most = line, most - 1
            if most <= 0:
                self.outcomes["left"] += 1
                return
        if last.strip() != b"data: [DONE]":
            self._complain(kind, f"the stream ended with {last[:80]!r}")
        self.outcomes["answered"] += 1

    async def _bad(self, session: aiohttp.ClientSession, kind: str) -> None:
        path, body = self._body("chat")
        if kind == "other_model":
            body["model"] = "nobody"
        elif kind == "too_long":
            body["messages"] = [{"role": "user", "content": self._text(self._context_tokens)}]
        elif kind == "wrong_field":
            body["temperature"] = self._random.choice(("hot", -1, None, [1]))
            body["max_tokens"] = 0
        elif kind == "empty":
            body["messages"] = []
        data = b"{\xff\x00" if kind == "rubbish" else json.dumps(body).encode()
        async with session.post(self._url + path, data=data, headers={"content-type": "application/json"}) as response:
            if not 400 <= response.status < 500:
                self._complain(kind, f"status {response.status} for a request that is wrong")
            self.outcomes["refused"] += 1
