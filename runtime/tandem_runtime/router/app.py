"""The router as a process: parts put together, two HTTP ports, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tandem_runtime.contracts.classes import Classes, read_classes
from tandem_runtime.openai.front import Front, FrontSettings
from tandem_runtime.openai.http_port import HttpPort
from tandem_runtime.openai.record import RequestRecord
from tandem_runtime.openai.spans import trace_request
from tandem_runtime.openai.stages import Stages
from tandem_runtime.router.access import Access
from tandem_runtime.router.admin import Admin
from tandem_runtime.router.backend import RouterBackend
from tandem_runtime.router.counters import Counters
from tandem_runtime.router.draining import Draining
from tandem_runtime.router.endpoints import EndpointWatcher
from tandem_runtime.router.key_folder import KeyFolder
from tandem_runtime.router.lanes import load_lanes
from tandem_runtime.router.settings import RouterSettings
from tandem_runtime.telemetry.http import MetricsServer
from tandem_runtime.telemetry.traces import make_tracer
from tandem_runtime.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
access_log = logging.getLogger("tandem.access")
CLOSE_SECONDS = 1.0
"""After the drain nothing is left that deserves more."""

NO_KEYS_SECONDS = 20.0
"""Without a valid API key before the process ends: a Secret may be made in the same breath as the deployment."""
KEYS_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the process listens. 0 takes any free port, for tests."""

    bind: str
    http: int
    metrics: int


class PortTaken(Exception):
    """The message names the port and the flag that changes it."""

    def __init__(self, bind: str, port: int, name: str, error: OSError) -> None:
        super().__init__(f"cannot listen on {bind}:{port} ({error.strerror or error}); set --{name}-port")


class RouterApp:
    """Everything of one router process. `start`, then `drain`, then `close`."""

    def __init__(
        self,
        settings: RouterSettings,
        front: FrontSettings,
        tokenizer: Tokenizer,
        endpoints: Path,
        ports: Ports,
        classes: Classes | None = None,
        classes_file: Path | None = None,
        keys_folder: Path | None = None,
    ) -> None:
        self.counters = Counters(classes)
        self.backend = RouterBackend(settings, self.counters)
        self.access = Access(KeyFolder(keys_folder, time.monotonic), self._routers) if keys_folder else None
        """None: everybody may ask."""
        stages = Stages([self.access] if self.access is not None else [])
        self.front = Front(front, tokenizer, self.backend, observe=self._observe, stages=stages)
        self.set_classes(classes or Classes())
        self.tracer = make_tracer("tandem-router", socket.gethostname())
        self.http_port = self.metrics_port = 0
        self.port = HttpPort(self.front.application(), close_seconds=CLOSE_SECONDS)
        admin = Admin(
            settings,
            self.backend,
            self.counters,
            lambda: self.front.in_flight,
            self._not_ready,
            self.port.counts,
            self.access,
        )
        self._draining = Draining(self.backend, settings.token, time.monotonic)
        self._metrics = MetricsServer(admin.routes(), self._draining.routes())
        self._watcher = EndpointWatcher(endpoints, self.backend.connections.set_addresses, settings.watch_seconds)
        self._ports = ports
        self._classes_file = classes_file
        self._watch_seconds = settings.watch_seconds
        self._lanes_wanted = settings.lanes
        self._watching: list[asyncio.Task[None]] = []

    def set_classes(self, classes: Classes) -> None:
        """From the next request on."""
        self.front.classes = self.backend.classes = classes
        self.counters.set_classes(classes)
        self.backend.fleet.law = replace(self.backend.fleet.law, tpot_seconds=classes.strictest_tpot_s)

    async def start(self) -> None:
        """Raises PortTaken."""
        loop = asyncio.get_running_loop()
        self._watching = [loop.create_task(self._watcher.run())]
        if self._lanes_wanted:
            self._watching.append(loop.create_task(self._find_lanes()))
        if self.access is not None:
            self.access.keys.look()
            self._watching.append(loop.create_task(self._watch_keys(self.access)))
        if self._classes_file is not None:
            self._watching.append(loop.create_task(self._watch_classes(self._classes_file)))
        self.metrics_port = await self._listen_metrics()
        await self._listen_http()

    async def drain(self, timeout_seconds: float) -> None:
        """Takes no new connection, lets every request finish that is there; bounded."""
        self.front.draining = True
        await self.port.stop_listening()
        log.info("draining: %d requests in flight", self.front.in_flight)
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while self.front.in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        if self.front.in_flight:
            log.warning("%d requests did not finish within %g s", self.front.in_flight, timeout_seconds)

    async def close(self) -> None:
        """Ends everything that is left."""
        for watching in self._watching:
            watching.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self.port.close()
        self._draining.close()
        await self.backend.close()
        await asyncio.to_thread(self.tracer.close)
        self._metrics.stop()

    async def _listen_metrics(self) -> int:
        try:
            return await self._metrics.start(self._ports.bind, self._ports.metrics)
        except OSError as error:
            raise PortTaken(self._ports.bind, self._ports.metrics, "metrics", error) from error

    async def _listen_http(self) -> None:
        try:
            self.http_port = await self.port.start(self._ports.bind, self._ports.http)
        except OSError as error:
            raise PortTaken(self._ports.bind, self._ports.http, "http", error) from error

    async def _find_lanes(self) -> None:
        """Compiling takes seconds where no image holds the library; requests are served meanwhile."""
        library = await asyncio.to_thread(load_lanes)
        if library is not None:
            self.backend.connections.use_lanes(library)

    async def _watch_classes(self, file: Path) -> None:
        """A file that is missing or broken leaves what was known, and is reported once."""
        known, problem = self.front.classes.all, ""
        while True:
            await asyncio.sleep(self._watch_seconds)
            classes, found = None, ""
            try:
                classes = read_classes(file)
            except ValueError as error:
                found = str(error)
            if found and found != problem:
                log.warning("%s; keeping the classes known", found)
            problem = found
            if classes is not None and classes.all != known:
                known = classes.all
                self.set_classes(classes)
                log.info("classes: %s", ", ".join(each.name for each in known))

    async def _watch_keys(self, access: Access) -> None:
        while True:
            try:
                await asyncio.to_thread(access.keys.look)  # thousands of keys take a tenth of a second
                access.refresh()
            except Exception:  # without the watcher a revoked key would go on counting
                log.exception("looking at the API keys failed; trying again")
            await asyncio.sleep(self._watch_seconds)

    def _routers(self) -> int:
        """That share the limits of keys: as many as pods see, which is right also while routers come and go."""
        return self.backend.board.routers() or self._watcher.routers

    def _not_ready(self) -> str:
        if self.front.draining:
            return "draining"
        if self.access is not None and self.access.keys.problem:
            return self.access.keys.problem
        return "" if self.port.listens else "starting"

    def _observe(self, record: RequestRecord) -> None:
        record.details = self.backend.take_details(record.submit_id)
        self.counters.count(record)
        trace_request(self.tracer, record)
        access_log.info("request", extra={"fields": record.log_fields()})


class NoKeys(Exception):
    """The message says why no API key is valid."""


async def serve(app: RouterApp, drain_timeout_seconds: float) -> None:
    """Until SIGTERM or SIGINT, then drains. Raises PortTaken and NoKeys."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await app.start()
        log.info("router listens on port %d, metrics on %d", app.http_port, app.metrics_port)
        await wait_for_end(app, stop)
        await app.drain(drain_timeout_seconds)
    finally:
        await app.close()


async def wait_for_end(app: RouterApp, stop: asyncio.Event) -> None:
    """Until `stop`. Raises NoKeys when no key is valid for long and nothing is under way: nobody loses by it, and what
    ends a process is told in the pod's status, while what keeps it from being ready is not."""
    clock, shut_since = asyncio.get_running_loop().time, None
    while app.access is not None and not stop.is_set():
        problem = app.access.keys.problem
        shut_since = (shut_since or clock()) if problem else None
        if shut_since is not None and clock() - shut_since >= NO_KEYS_SECONDS and not app.front.in_flight:
            raise NoKeys(problem)
        with suppress(TimeoutError):
            async with asyncio.timeout(KEYS_POLL_SECONDS):
                await stop.wait()
    await stop.wait()
