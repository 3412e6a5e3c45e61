"""`tandem-runtime prefill|decode|both`: start, serve until SIGTERM, drain, end. Exit codes: 0, 1, 2, 3."""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tandem_runtime.contracts.names import EXIT_BAD_CONFIG, EXIT_BAD_MODEL
from tandem_runtime.engine.client import EngineClient
from tandem_runtime.engine.executor import ModelError
from tandem_runtime.server.internal_port import InternalPort
from tandem_runtime.server.pod import Pod, PodIdentity
from tandem_runtime.server.settings import ConfigError, ServerSettings, add_arguments, read_settings
from tandem_runtime.server.signals import Probes
from tandem_runtime.telemetry.http import MetricsServer
from tandem_runtime.telemetry.logs import configure_logging
from tandem_runtime.text.tokenizer import TokenizerError, load_tokenizer
from tandem_runtime.transfer.pace import LinkPace

__all__ = ["add_arguments", "run"]

log = logging.getLogger(__name__)

EXIT_ENGINE = 1
"""The engine gave up while serving; a restart is the remedy."""
Stop = Callable[[], Awaitable[None]]


def run(args: argparse.Namespace) -> int:
    """The exit code. `args.role` is prefill, decode or both."""
    try:
        settings = read_settings(args.role, args)
    except ConfigError as error:
        print(f"tandem-runtime {args.role}: {error}", file=sys.stderr)
        return EXIT_BAD_CONFIG
    configure_logging(settings.role, settings.pod_name)
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
    probes = Probes()
    metrics = MetricsServer(probes.routes())
    try:
        await metrics.start(settings.bind, settings.metrics_port)
        pod = await _load(settings, terminated)
        if pod is None:
            return 0
        probes.loaded_seconds = time.monotonic() - started
        stop = await _open_ports(settings, pod, probes)
    except (ModelError, TokenizerError) as error:
        return _fail(settings, str(error), EXIT_BAD_MODEL)
    except OSError as error:
        return _fail(settings, f"cannot listen: {error}", EXIT_BAD_CONFIG)
    log.info("ready after %.2f s", time.monotonic() - started)
    ended = asyncio.wrap_future(pod.engine.engine.ended)
    waiting = asyncio.create_task(terminated.wait())
    await asyncio.wait([ended, waiting], return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        return _fail(settings, f"the engine gave up: {ended.exception()}", EXIT_ENGINE)
    log.info("draining %d requests", pod.in_flight)
    left = await pod.drain(settings.drain_seconds)
    await stop()
    log.info("drained; %d requests were cut off", left)
    metrics.stop()
    return 0


async def _load(settings: ServerSettings, terminated: asyncio.Event) -> Pod | None:
    """None when SIGTERM came first."""
    engine = EngineClient(settings.make_executor(), settings.scheduler())
    loading = asyncio.create_task(engine.load())
    tokenizer = load_tokenizer(None if settings.executor == "emulated" else settings.model)
    waiting = asyncio.create_task(terminated.wait())
    await asyncio.wait([loading, waiting], return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        return None
    waiting.cancel()
    capacity = loading.result()
    identity = PodIdentity(
        pod=settings.pod_name,
        role=settings.role,
        revision=settings.revision,
        incarnation=secrets.token_hex(8),
        address=settings.address,
        token=settings.token,
        model_name=settings.model_name,
    )
    pace = None
    if settings.coefficients is not None:
        real_bytes = capacity.page_tokens * settings.coefficients.kv_bytes_per_token
        link = settings.coefficients.link
        pace = LinkPace(link.setup_s, link.bytes_per_s, real_bytes / capacity.layout.page_bytes)
    return Pod(identity, engine, tokenizer, pace)


async def _open_ports(settings: ServerSettings, pod: Pod, probes: Probes) -> Stop:
    """Listens; the pod is ready afterwards. Returns what closes everything."""
    pod.kv_port = await pod.sender.start(settings.bind, settings.kv_port)
    port = InternalPort(pod)
    await port.start(settings.bind, settings.internal_port)
    stop_front: Stop | None = None
    if settings.role == "both":
        from tandem_runtime.server.front import start_front

        stop_front = await start_front(settings, pod)
    probes.pod, probes.port = pod, port

    async def stop() -> None:
        if stop_front is not None:
            await stop_front()
        await port.stop()
        pod.stop()

    return stop


def _fail(settings: ServerSettings, reason: str, code: int) -> int:
    """One line for people on stderr, and for `kubectl describe` in the termination log."""
    line = " ".join(reason.split())
    log.error("%s", line)
    print(f"tandem-runtime {settings.role}: {line}", file=sys.stderr)
    with suppress(OSError):
        if settings.termination_log.exists() or settings.termination_log.parent.is_dir():
            settings.termination_log.write_text(line + "\n", encoding="utf-8")
    return code
