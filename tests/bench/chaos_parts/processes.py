"""One process of the product under test: started, killed, frozen, asked for its metrics, its log lines kept."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tandem_runtime.router.children import make_die_with_parent

from tests.bench.chaos_parts.answers import get, post

KEPT_LINES = 400


@dataclass(frozen=True, slots=True)
class Said:
    """One log line. `at` is seconds since the epoch, to the millisecond."""

    at: float
    message: str


@dataclass(slots=True)
class Process:
    """`command` may run it elsewhere (in a network namespace); its own arguments follow."""

    name: str
    command: Sequence[str]
    host: str
    metrics_port: int
    started: int = 0
    said: deque[Said] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    last_words: deque[str] = field(default_factory=lambda: deque(maxlen=30))
    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Not ready yet."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            preexec_fn=make_die_with_parent(),
        )
        self.started += 1
        self._reading = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            text = line.decode(errors="replace").rstrip()
            self.last_words.append(text)
            try:
                entry = json.loads(text)
                more = " ".join(f"{key}={entry[key]}" for key in ("id", "pods", "retries", "reason") if key in entry)
                message = f"{entry['message']} {more}".rstrip()
                self.said.append(Said(datetime.fromisoformat(entry["time"]).timestamp(), message))
            except (ValueError, KeyError, TypeError):
                continue

    @property
    def alive(self) -> bool:
        """Not ended; it may be frozen."""
        return self._process is not None and self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def wait(self, limit_seconds: float) -> int | None:
        """Its exit code; None when it did not end in time."""
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), limit_seconds)
        except TimeoutError:
            return None

    async def end(self) -> None:
        """Kills it."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def ready(self, limit_seconds: float = 300.0) -> None:
        """Raises RuntimeError with its last words when it ends or takes too long."""
        deadline = time.monotonic() + limit_seconds
        while (await get(self.host, self.metrics_port, "/readyz"))[0] != 200:
            if not self.alive or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} is not ready:\n" + "\n".join(self.last_words))
            await asyncio.sleep(0.05)

    async def metrics(self) -> dict[str, float]:
        """Values by name; labelled ones are summed. Empty when it does not answer."""
        status, text = await get(self.host, self.metrics_port, "/metrics")
        values: dict[str, float] = {}
        if status == 200:
            for line in text.splitlines():
                if line and not line.startswith("#"):
                    name, value = line.split("{", 1)[0].split()[0], float(line.split()[-1])
                    values[name] = values.get(name, 0.0) + value
        return values

    async def document(self, path: str) -> Any:
        """A JSON document of the metrics port; None when it does not answer."""
        status, text = await get(self.host, self.metrics_port, path)
        return json.loads(text) if status == 200 else None

    async def take_role(self, role: str, token: str, grace_seconds: float, limit_seconds: float) -> bool:
        """Tells the pod to; whether it was ready in that role within the limit."""
        deadline = time.monotonic() + limit_seconds
        signals = await self.document("/signals")
        order = {"role": role, "incarnation": signals and signals["incarnation"], "grace_s": grace_seconds}
        while time.monotonic() < deadline:
            status, _ = await post(self.host, self.metrics_port, "/role", token, json.dumps(order))
            if status == 200:
                return True
            await asyncio.sleep(0.05)
        return False

    def heard(self, since: float, words: Sequence[str]) -> float | None:
        """When it first said a line with one of these words, in seconds after `since` (epoch)."""
        for line in self.said:
            if line.at >= since - 0.002 and any(word in line.message for word in words):
                return max(0.0, line.at - since)
        return None


def runtime(*arguments: str) -> list[str]:
    """The command line of a role."""
    return [sys.executable, "-m", "tandem_runtime", *arguments]
