"""Routers, prefill and decode pods as processes, each reachable directly, by a cable, or through faulty wires."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

from tests.bench.chaos_parts.cables import Cable, add_address
from tests.bench.chaos_parts.processes import Process, runtime
from tests.bench.chaos_parts.wires import Wire

MODEL = "chaos"
TOKEN = "chaos"
LEAK_SECONDS = 8.0
"""Within that, all pages are free again: longer than a heartbeat's patience, which frees those of a cut peer."""
START_SECONDS = 300.0
"""For a whole fleet; a machine that is busy with other things takes minutes to import what a second imports else."""
IDLE = ("vllm:num_requests_running", "vllm:num_requests_waiting", "tandem_kv_inflight")
PAGES = ("tandem_engine_used_pages", "tandem_engine_leaked_pages")
Network = Literal["cables", "wires"]
"""How pods are cut off: by unplugging a veth cable, or by proxies that swallow everything. The kv port has a proxy in
both, for damaged frames."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet is made of."""

    name: str
    number: int
    executor: tuple[str, ...]
    network: Network
    prefill: int = 2
    decode: int = 2
    routers: int = 2
    drain: str = "1s"
    """Shorter than an answer: what runs has to move."""
    wait_for_pods: str = "60s"


@dataclass(slots=True)
class Member:
    """One pod or router and how to hurt it."""

    role: str
    process: Process
    cable: Cable | None = None
    wires: list[Wire] = field(default_factory=list)
    http_port: int = 0

    def cut(self) -> None:
        """Nothing comes through, in either direction."""
        if self.cable is not None:
            self.cable.cut()
            return
        for wire in self.wires:
            wire.cut = True

    def mend(self) -> None:
        """The network is whole. Idempotent."""
        if self.cable is not None:
            self.cable.mend()
        for wire in self.wires:
            wire.cut = False


class Fleet:
    """`start`, trials, `close`."""

    def __init__(self, plan: Plan, folder: Path, random: Random) -> None:
        self.plan, self.random = plan, random
        self.pods: list[Member] = []
        self.routers: list[Member] = []
        self._folder = folder

    @property
    def members(self) -> list[Member]:
        """All of them."""
        return [*self.pods, *self.routers]

    def role(self, role: str) -> list[Member]:
        """Pods of one role."""
        return [member for member in self.pods if member.role == role]

    async def start(self) -> None:
        """All ready, and every router connected to every pod."""
        write_token(self._folder)
        entries = []
        ports = free_ports(3)
        for index, role in enumerate(["prefill"] * self.plan.prefill + ["decode"] * self.plan.decode):
            member, host = await self._make_pod(index, role, ports)
            self.pods.append(member)
            address = f"{host}:{ports[0]}"
            entries.append({"pod": member.process.name, "address": address, "role": role, "revision": "r"})
        (self._folder / "endpoints.json").write_text(json.dumps({"schema": 1, "pods": entries}))
        self.routers = [self._make_router(index) for index in range(self.plan.routers)]
        for member in self.members:
            await member.process.start()
        await self.settle(START_SECONDS)

    async def _make_pod(self, index: int, role: str, ports: tuple[int, ...]) -> tuple[Member, str]:
        plan = self.plan
        name = f"{plan.name}-{role}-{index}"
        cable = None
        if plan.network == "cables":
            host, shown = f"10.77.{plan.number + 1}.{index + 10}", f"10.77.{plan.number + 1}.{index + 110}"
            cable = Cable(f"{plan.number}x{index}", host)
            add_address(shown)
        else:
            host, shown = f"127.77.{plan.number}.{index + 10}", f"127.77.{plan.number}.{index + 110}"
        wires = []
        for port, framed in ((ports[1], True), *([] if cable else [(ports[0], False)])):
            wire = Wire((host, port), Random(self.random.random()), framed)
            await wire.listen(shown, port)
            wires.append(wire)
        arguments = runtime(
            role, *plan.executor, "--pod-name", name, "--address", shown, "--bind", host, "--revision", "r",
            "--token-file", str(self._folder / "token"), "--internal-port", str(ports[0]), "--kv-port", str(ports[1]),
            "--metrics-port", str(ports[2]), "--drain-timeout", plan.drain,
            "--termination-log", str(self._folder / f"{name}.end"),
        )  # fmt: skip
        process = Process(name, [*(cable.command() if cable else []), *arguments], host, ports[2])
        return Member(role, process, cable, wires), host if cable else shown

    def _make_router(self, index: int) -> Member:
        plan = self.plan
        host = f"127.77.{plan.number}.{index + 2}"
        name = f"{plan.name}-router-{index}"
        http_port, metrics_port = free_ports(2)
        model = plan.executor[plan.executor.index("--model") :][:2] if "--model" in plan.executor else ()
        arguments = runtime(
            "router", "--endpoints", str(self._folder / "endpoints.json"), "--model-name", MODEL, *model,
            "--revision", "r", "--token-file", str(self._folder / "token"), "--wait-for-pods", plan.wait_for_pods,
            "--bind", host, "--http-port", str(http_port), "--metrics-port", str(metrics_port),
            "--drain-timeout", "60s",
        )  # fmt: skip
        return Member("router", Process(name, arguments, host, metrics_port), http_port=http_port)

    async def settle(self, limit_seconds: float = START_SECONDS) -> None:
        """What died is started again; waits until all are ready and know each other. Raises RuntimeError."""
        deadline = time.monotonic() + limit_seconds
        for member in self.members:
            if not member.process.alive:
                await member.process.start()
        for member in self.members:
            await member.process.ready(max(1.0, deadline - time.monotonic()))
        while not all([await self._connected(router) for router in self.routers]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.plan.name}: routers and pods did not find each other")
            await asyncio.sleep(0.05)

    async def _connected(self, router: Member) -> bool:
        signals = await router.process.document("/signals")
        serving = {pod["pod"] for pod in (signals or {"pods": []})["pods"] if pod["ready"]}
        return {pod.process.name for pod in self.pods} <= serving

    async def find_leaks(self) -> list[str]:
        """What is still held once nothing runs; empty when all is free within LEAK_SECONDS."""
        deadline = time.monotonic() + LEAK_SECONDS
        while True:
            held: list[str] = []
            for pod in self.pods:
                values = await pod.process.metrics()
                held += [
                    f"{pod.process.name} {name} {values.get(name)}" for name in (*IDLE, *PAGES) if values.get(name)
                ]
                held += [] if values else [f"{pod.process.name} says nothing"]
            if not held or time.monotonic() > deadline:
                return held
            await asyncio.sleep(0.1)

    def revive(self) -> None:
        """No member stays frozen or cut, no frame is damaged any more."""
        for member in self.members:
            member.process.signal(signal.SIGCONT)
            member.mend()
            for wire in member.wires:
                wire.disarm()

    async def restart(self) -> None:
        """All processes anew, after a trial that ended in disorder."""
        self.revive()
        for member in self.members:
            await member.process.end()
        await self.settle(START_SECONDS)

    async def close(self) -> None:
        """Ends all."""
        for member in self.members:
            await member.process.end()
            for wire in member.wires:
                wire.close()
            if member.cable is not None:
                member.cable.close()


def write_token(folder: Path) -> None:
    """What all of one fleet say to each other."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(f"{TOKEN}\n")


def free_ports(count: int) -> tuple[int, ...]:
    """Of loopback, held all at once, so that they differ."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = tuple(int(each.getsockname()[1]) for each in held)
    for each in held:
        each.close()
    return ports
