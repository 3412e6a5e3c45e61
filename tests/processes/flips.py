"""A served fleet under steady streams with known answers, whose pods are told to take the other role."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from tandem_runtime.router.children import stop_all
from tandem_runtime.router.serve import HOST, ServePlan, add_arguments, get, make_children, make_plan, wait_connected

from tests.processes.test_serve import free_port_base

FLIP_SECONDS: Final = 180.0
"""Far more than it takes on the slowest machine."""
SILENT_SECONDS: Final = 180.0
"""Without a piece for that long a stream hangs; how long all of it takes is the machine's affair."""
BUSY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, whose answer is always the same."""

    prompt: str
    max_tokens: int


@dataclass
class Turning:
    """The fleet from outside. `problems` are what clients must never see."""

    plan: ServePlan
    token: str
    model: str
    session: aiohttp.ClientSession
    right: dict[Ask, tuple[str, str]] = field(default_factory=dict)
    streams: int = 0
    flips: int = 0
    problems: list[str] = field(default_factory=list)
    loading: bool = False

    def port(self, name: str) -> int:
        """Metrics port of a pod."""
        return next(pod.metrics_port for pod in self.plan.pods if pod.name == name)

    async def document(self, port: int, path: str = "/signals") -> Any:
        async with self.session.get(f"http://{HOST}:{port}{path}") as answer:
            return await answer.json(content_type=None)

    async def order(self, name: str, role: str, **more: Any) -> tuple[int, Any]:
        """POST /role with the incarnation that the pod has now."""
        incarnation = (await self.document(self.port(name)))["incarnation"]
        url, body = f"http://{HOST}:{self.port(name)}/role", {"role": role, "incarnation": incarnation, **more}
        async with self.session.post(url, json=body, headers={"Authorization": f"Bearer {self.token}"}) as answer:
            text = await answer.text()
            return answer.status, msgspec.json.decode(text) if text.startswith("{") else text

    async def flip(self, name: str, role: str, **more: Any) -> Any:
        """Its account, once the pod is ready and the router uses it as what it is; `told_s` is until then."""
        await self._busy(name)
        began = time.monotonic()
        status, text = await self.order(name, role, **more)
        assert status == 202, text
        async with asyncio.timeout(FLIP_SECONDS):
            while not (signals := await self.document(self.port(name)))["flip"]["done"]:
                await asyncio.sleep(0.02)
            while (name, role) not in await self.serving():
                await asyncio.sleep(0.02)
        self.flips += 1
        assert (signals["role"], signals["ready"]) == (role, True)
        return signals["flip"] | {"told_s": time.monotonic() - began}

    async def _busy(self, name: str) -> None:
        """Under load, waits a while until the pod has work: a change that meets none is none to test."""
        deadline = time.monotonic() + BUSY_SECONDS
        while self.loading and time.monotonic() < deadline:
            signals = await self.document(self.port(name))
            if signals["running"] >= (3 if signals["role"] == "decode" else 1):
                return
            await asyncio.sleep(0.01)

    async def serving(self) -> set[tuple[str, str]]:
        """Pods and roles that the router uses."""
        pods = (await self.document(self.plan.metrics_port))["pods"]
        return {(pod["pod"], pod["role"]) for pod in pods if pod["ready"]}

    async def stream(self, ask: Ask) -> tuple[str, str]:
        """Text and finish reason, or what went wrong."""
        body = {
            "model": self.model,
            "prompt": ask.prompt,
            "max_tokens": ask.max_tokens,
            "stream": True,
            "temperature": 0,
        }
        text, reason, done = "", "", False
        loop = asyncio.get_running_loop()
        async with (
            asyncio.timeout(SILENT_SECONDS) as patience,
            self.session.post(f"http://{HOST}:{self.plan.http_port}/v1/completions", json=body) as answer,
        ):
            if answer.status != 200:
                return await answer.text(), f"status {answer.status}"
            async for line in answer.content:
                patience.reschedule(loop.time() + SILENT_SECONDS)
                event = line.removeprefix(b"data: ").strip()
                if event == b"[DONE]":
                    done = True
                elif event.startswith(b"{"):
                    chunk = msgspec.json.decode(event)
                    for choice in chunk.get("choices", ()):
                        text += choice["text"]
                        reason = choice["finish_reason"] or reason
                    reason = f"error {chunk['error']}" if "error" in chunk else reason
        return text, reason if done else f"cut off, {reason!r}"

    async def learn(self, asks: Sequence[Ask]) -> None:
        """The right answers, before anybody flips."""
        for ask, right in zip(asks, await asyncio.gather(*map(self.stream, asks)), strict=True):
            self.right[ask] = right
            assert right[1] in ("length", "stop"), right

    async def _keep_asking(self, first: int) -> None:
        for ask in itertools.islice(itertools.cycle(self.right), first, None):
            if not self.loading:
                return
            try:
                got = await self.stream(ask)
            except (aiohttp.ClientError, TimeoutError) as error:
                got = "", f"{type(error).__name__}: {error}"
            self.streams += 1
            if got != self.right[ask]:
                right = self.right[ask][0]
                same = next((at for at, pair in enumerate(zip(got[0], right, strict=False)) if len(set(pair)) > 1), -1)
                self.problems.append(f"{got[1]} after {len(got[0])} of {len(right)} characters, differs at {same}")

    @asynccontextmanager
    async def load(self, clients: int) -> AsyncIterator[None]:
        """So many streams at any time; at the end all of them come to theirs."""
        self.loading = True
        asking = [asyncio.create_task(self._keep_asking(number)) for number in range(clients)]
        try:
            yield
        finally:
            self.loading = False
            await asyncio.gather(*asking)


@asynccontextmanager
async def turning(folder: Path, *arguments: str) -> AsyncIterator[Turning]:
    """Two pods of each role and a router, all connected."""
    base = free_port_base()
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([*arguments, "--prefill", "2", "--decode", "2", "--port-base", str(base)])
    plan = make_plan(base, args.prefill, args.decode)
    children = make_children(args, plan, folder)
    model = args.model.name if args.model is not None else "emulated"
    try:
        for child in children:
            await child.start()
        await wait_connected(plan, time.monotonic())
        async with asyncio.timeout(FLIP_SECONDS):
            while (await get(plan.metrics_port, "/readyz"))[0] != 200:
                await asyncio.sleep(0.02)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            yield Turning(plan, (folder / "token").read_text(), model, session)
    finally:
        await stop_all(children, 5)
