"""`tandem-runtime prefill|decode|both`: start, serve until SIGTERM, drain, end. Exit codes: 0, 1, 2, 3."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tandem_runtime.contracts.names import EXIT_BAD_CONFIG, EXIT_BAD_MODEL, TERMINATION_LOG
from tandem_runtime.engine.client import EngineClient
from tandem_runtime.engine.executor import ModelError
from tandem_runtime.server.flip import Flipping, make_incarnation
from tandem_runtime.server.internal_port import InternalPort
from tandem_runtime.server.memory import keep_freed_memory
from tandem_runtime.server.pod import Pod, PodIdentity
from tandem_runtime.server.role_order import RoleCall
from tandem_runtime.server.settings import ConfigError, ServerSettings, add_arguments, read_settings
from tandem_runtime.server.signals import Probes
from tandem_runtime.telemetry.http import MetricsServer
from tandem_runtime.telemetry.logs import configure_logging, set_role
from tandem_runtime.telemetry.traces import make_tracer
from tandem_runtime.text.tokenizer import TokenizerError, load_tokenizer
from tandem_runtime.transfer.pace import LinkPace

if TYPE_CHECKING:
    from tandem_runtime.server.front import FrontServer

__all__ = ["add_arguments", "run"]

log = logging.getLogger(__name__)

EXIT_ENGINE = 1
"""The engine gave up while serving; a restart is the remedy."""


def run(args: argparse.Namespace) -> int:
    """The exit code. `args.role` is prefill, decode or both."""
    configure_logging(args.role, args.pod_name)
    try:
        settings = read_settings(args.role, args)
    except ConfigError as error:
        return _fail(args.role, args.termination_log, str(error), EXIT_BAD_CONFIG)
    keep_freed_memory()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(settings))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop  # type: ignore[no-any-return]


async def _serve(settings: ServerSettings) -> int:
    started = time.monotonic()
    terminated = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, terminated.set)
    probes, role_call = Probes(), RoleCall(settings.token)
    metrics = MetricsServer(probes.routes(), role_call.routes())
    try:
        await metrics.start(settings.bind, settings.metrics_port)
        try:
            pod = await _load(settings, terminated)
        except OSError as error:
            raise ModelError(f"{settings.model} cannot be read: {error}") from error
        if pod is None:
            return 0
        probes.loaded_seconds = time.monotonic() - started
        ports = Ports(pod)
        await ports.open(settings)
        on_role = partial(_tell_role, pod)
        flipping = Flipping(pod, ports.internal, settings.drain_seconds, on_role, terminated.set)
        probes.pod, probes.port, probes.flipping = pod, ports.internal, flipping
        role_call.attach(pod, flipping)
    except (ModelError, TokenizerError) as error:
        return _fail(settings.role, settings.termination_log, str(error), EXIT_BAD_MODEL)
    except OSError as error:
        return _fail(
            settings.role, settings.termination_log, f"cannot listen on {settings.bind}: {error}", EXIT_BAD_CONFIG
        )
    except Exception as error:
        log.exception("the start failed")
        return _fail(settings.role, settings.termination_log, f"{type(error).__name__}: {error}", EXIT_ENGINE)
    log.info("ready after %.2f s", time.monotonic() - started)
    ended = asyncio.wrap_future(pod.engine.engine.ended)
    ended.add_done_callback(lambda _: terminated.set())
    await terminated.wait()
    flipping.stop()
    if flipping.failure is not None:
        words = f"the change of role broke: {flipping.failure}"
        return _fail(settings.role, settings.termination_log, words, EXIT_ENGINE)
    if ended.done():
        return _fail(settings.role, settings.termination_log, f"the engine gave up: {ended.exception()}", EXIT_ENGINE)
    log.info("draining %d requests", pod.in_flight)
    ports.drain()
    report = await pod.drain(settings.drain_seconds)
    await ports.close()
    log.info("drained", extra={"fields": asdict(report)})
    await asyncio.to_thread(pod.requests.tracer.close)
    metrics.stop()
    return 0


async def _load(settings: ServerSettings, terminated: asyncio.Event) -> Pod | None:
    """None when SIGTERM came first."""
    # In a thread: importing torch takes seconds, and /healthz has to answer meanwhile.
    executor = await asyncio.to_thread(settings.make_executor)
    engine = EngineClient(executor, settings.scheduler())
    loading = asyncio.create_task(engine.load())
    loading.add_done_callback(
        lambda task: task.cancelled() or task.exception()
    )  # seen, also if the tokenizer fails first
    # In a thread too: a vocabulary of 150,000 entries takes a second.
    model = None if settings.executor == "emulated" else settings.model
    tokenizer = await asyncio.to_thread(load_tokenizer, model)
    waiting = asyncio.create_task(terminated.wait())
    loading.add_done_callback(lambda _: waiting.cancel())
    await asyncio.wait([waiting])
    if not loading.done():
        return None
    capacity = loading.result()
    identity = PodIdentity(
        pod=settings.pod_name,
        role=settings.role,
        revision=settings.revision,
        incarnation=make_incarnation(),
        address=settings.address,
        token=settings.token,
        model_name=settings.model_name,
        coefficients=settings.coefficients,
    )
    pace = None
    if settings.coefficients is not None:
        real_bytes = capacity.page_tokens * settings.coefficients.kv_bytes_per_token
        link = settings.coefficients.link
        pace = LinkPace(link.setup_s, link.bytes_per_s, real_bytes / capacity.layout.page_bytes)
    tracer = make_tracer(f"tandem-{settings.role}", settings.pod_name)
    return Pod(identity, engine, tokenizer, pace, settings.kv, tracer)


def _tell_role(pod: Pod, role: str) -> None:
    """Log lines and spans from now on are of this role; those before leave under the old one's name."""
    set_role(role)
    old = pod.requests.tracer
    if old.on:
        pod.requests.tracer = make_tracer(f"tandem-{role}", pod.identity.pod)
        pod.requests.tracer.lost = old.lost
        closing = threading.Thread(target=old.close, name="old traces", daemon=True)  # a collector may not answer
        closing.start()


class Ports:
    """All ports of a pod but the metrics port."""

    def __init__(self, pod: Pod) -> None:
        self.internal = InternalPort(pod)
        self._pod = pod
        self._front: FrontServer | None = None

    async def open(self, settings: ServerSettings) -> None:
        """The pod can serve afterwards. Raises OSError when a port is taken."""
        self._pod.kv_port = await self._pod.sender.start(settings.bind, settings.kv_port)
        if settings.role == "both":
            from tandem_runtime.server.front import FrontServer  # aiohttp is half of an emulated pod's start-up

            self._front = FrontServer(self._pod, settings.model_name)
            await self._front.start(settings.bind, settings.http_port)
        await self.internal.start(settings.bind, settings.internal_port)
        self._pod.preflight.start()

    def drain(self) -> None:
        """Clients are asked to leave."""
        if self._front is not None:
            self._front.drain()

    async def close(self) -> None:
        """What is complete is still sent."""
        if self._front is not None:
            await self._front.stop()
        await self.internal.stop()
        self._pod.stop()


def _fail(role: str, termination_log: Path, reason: str, code: int) -> int:
    """One line for people on stderr, and for `kubectl describe` in the termination log."""
    line = " ".join(reason.split())
    log.error("%s", line)
    print(f"tandem-runtime {role}: {line}", file=sys.stderr)
    with suppress(OSError):
        # The default is a file that Kubernetes makes; elsewhere it is not ours to make.
        if termination_log.exists() or termination_log != Path(TERMINATION_LOG):
            termination_log.write_text(line + "\n", encoding="utf-8")
    return code
