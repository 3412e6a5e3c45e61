"""Flags -> hold the Lease -> watch and reconcile -> stop when a signal comes or the Lease is lost."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tandem_operator.config import (
    AdmissionSettings,
    InventorySettings,
    LeaseSettings,
    LoopSettings,
    RenderSettings,
    Settings,
)

if TYPE_CHECKING:
    from tandem_operator.placement.inventory import Inventory
    from tandem_operator.reconcile.placement import PlacementStep

log = logging.getLogger("tandem_operator")

EXIT_LEASE_LOST = 1
"""Kubernetes starts the container anew, as a standby: fencing by restart."""


def parse_settings(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(
        prog="tandem-operator",
        description="Makes and keeps what InferenceDeployments ask for. In a pod it uses its ServiceAccount, else"
        " $KUBECONFIG or ~/.kube/config.",
    )
    parser.add_argument(
        "--default-runtime-image",
        default=RenderSettings.default_runtime_image,
        metavar="IMAGE",
        help="image of router and model pods whose spec names none (default: %(default)s)",
    )
    parser.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="watch this namespace only; may be given several times (default: all)",
    )
    parser.add_argument(
        "--lease-name",
        default=LeaseSettings.name,
        metavar="NAME",
        help="Lease by which instances of one operator choose who works (default: %(default)s)",
    )
    parser.add_argument(
        "--telemetry-port",
        type=int,
        default=Settings.telemetry_port,
        metavar="PORT",
        help="serves /healthz, /readyz and /metrics (default: %(default)s)",
    )
    parser.add_argument("--log-level", default=Settings.log_level, choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    parser.add_argument(
        "--resync-seconds",
        type=float,
        default=LoopSettings.resync_seconds,
        metavar="SECONDS",
        help="look at every deployment at least this often (default: %(default)s)",
    )
    parser.add_argument(
        "--hardware-classes",
        default="",
        metavar="FILE",
        help="HardwareClass objects to keep in the cluster, as the chart writes them (default: leave them as they are)",
    )
    parser.add_argument(
        "--no-inventory",
        action="store_true",
        help="do not watch nodes and the pods that hold their devices: nothing is placed by hardware class",
    )
    parser.add_argument(
        "--admission",
        default="",
        metavar="NAME",
        help="serve the admission webhook; its Service and Secret in $POD_NAMESPACE have this name (default: do not)",
    )
    options = parser.parse_args(arguments)
    return Settings(
        render=RenderSettings(default_runtime_image=options.default_runtime_image),
        loop=LoopSettings(resync_seconds=options.resync_seconds),
        lease=LeaseSettings(name=options.lease_name),
        inventory=InventorySettings(enabled=not options.no_inventory, hardware_classes_file=options.hardware_classes),
        admission=AdmissionSettings(name=options.admission),
        namespaces=tuple(options.namespace),
        telemetry_port=options.telemetry_port,
        log_level=options.log_level,
    )


def make_placement(inventory: Inventory, is_ready: Callable[[], bool], settings: InventorySettings) -> PlacementStep:
    """What chooses hardware; while nodes are listed, for the first time or for a new class, it waits for a while."""
    from tandem_operator.cluster.repository import Repository
    from tandem_operator.reconcile.models import Models
    from tandem_operator.reconcile.placement import PlacementStep
    from tandem_operator.reconcile.placer import Placer

    since: float | None = None

    def is_starting() -> bool:
        nonlocal since
        since = None if is_ready() else since or time.monotonic()
        return settings.enabled and since is not None and time.monotonic() < since + settings.patience_seconds

    models = Models(Repository().read, time.monotonic)
    return PlacementStep(Placer(inventory, is_ready), models, is_starting)


def exit_code(done: Iterable[asyncio.Task[Any]]) -> int:
    """Of tasks that ended though they should have gone on; what ended them is logged."""
    from tandem_operator.cluster.lease import LeaseLost

    code = 0
    for task in done:
        error = task.exception()
        if isinstance(error, LeaseLost):
            log.error("the Lease is lost, stopping at once: %s", error)
            code = EXIT_LEASE_LOST
        elif error:
            log.error("%s ended: %r", task.get_name(), error, exc_info=error)
            code = code or 1
    return code


async def run(settings: Settings) -> int:
    """Exit code."""
    from tandem_operator.cluster.admission import AdmissionServer, keep_serving
    from tandem_operator.cluster.client import KubernetesClient, load_configuration
    from tandem_operator.cluster.handlers import watch
    from tandem_operator.cluster.hardware import HardwareWatch
    from tandem_operator.cluster.lease import Lease
    from tandem_operator.cluster.scope import Scope
    from tandem_operator.cluster.trust import Trust
    from tandem_operator.placement.inventory import Inventory
    from tandem_operator.reconcile.hardware import HardwareReporter
    from tandem_operator.reconcile.queue import Outcome, WorkQueue
    from tandem_operator.reconcile.reconciler import Key, Reconciler
    from tandem_operator.telemetry.hardware import HardwareCollector
    from tandem_operator.telemetry.metrics import Metrics
    from tandem_operator.telemetry.server import make_app, serve

    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    configuration = await load_configuration()
    client = KubernetesClient(configuration, identity)
    namespace = os.environ.get("POD_NAMESPACE", "default")
    lease = Lease(client, namespace, identity, settings.lease)
    leads = asyncio.Event()

    def observe(outcome: Outcome) -> None:
        metrics.observe(outcome.result, outcome.seconds)

    inventory = Inventory()
    seen = asyncio.Event()
    placement = make_placement(inventory, seen.is_set, settings.inventory)
    reconciler = Reconciler(client, settings, lambda: datetime.now(UTC), placement=placement)
    queue: WorkQueue[Key] = WorkQueue(reconciler.reconcile, settings.loop, observe)
    metrics = Metrics(queue.depth, queue.oldest_seconds, lambda: float(leads.is_set()))
    reporter = HardwareReporter(client, inventory, lambda: datetime.now(UTC))
    hardware = HardwareWatch(client, inventory, reporter, settings.inventory, settings.namespaces, queue.add_all, leads)
    hardware.ready = seen
    door = AdmissionServer(placement.pose, settings.admission.port, metrics.review)

    def unhealthy() -> str:
        age = queue.stalled_seconds()
        return f"a look at a deployment has not ended for {age:.0f} s" if age > settings.loop.stuck_seconds else ""

    runner = await serve(make_app(unhealthy, lambda: lease.reached, metrics.text), settings.telemetry_port)
    stop = asyncio.Event()

    def handle_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    handle_signals()
    code = 0
    stopped = asyncio.create_task(stop.wait(), name="stop")
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(lease.acquire()), stopped]
    counting: list[asyncio.Task[Any]] = []
    if settings.inventory.enabled:
        counting.append(asyncio.create_task(hardware.keep(), name="inventory"))
    if name := settings.admission.name:
        trust = Trust(client, namespace, name, settings.admission.configuration(namespace), lambda: datetime.now(UTC))
        counting.append(asyncio.create_task(keep_serving(door, trust, leads.is_set), name="admission"))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return 0
        await tasks[0]
        leads.set()
        metrics.registry.register(HardwareCollector(inventory))  # of one instance: they are sums over the cluster
        work = asyncio.create_task(queue.run(), name="queue")
        held = asyncio.create_task(lease.hold(), name="lease")
        scope = Scope(client, settings.namespaces, settings.scope_check_seconds)
        watched = scope.follow(lambda names: watch(queue.add, configuration, names, stop, handle_signals), stop)
        watching = asyncio.create_task(watched, name="watch")
        tasks += [work, held, watching]
        done, _ = await asyncio.wait([stopped, work, held, watching, *counting], return_when=asyncio.FIRST_COMPLETED)
        code = exit_code(done)
        for task in (writing := [work, *counting]):
            task.cancel()  # nothing is written from here on
        await asyncio.wait(writing)
        leads.clear()
        if not held.done():
            held.cancel()
            await lease.release()
        stop.set()
        # Not wait_for: in the end kopf cancels every task that is younger than itself, and that makes one.
        await asyncio.wait([watching], timeout=settings.shutdown_seconds)
    finally:
        tasks += counting
        for task in tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()
        await client.close()
    return code


def main(arguments: list[str] | None = None) -> int:
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
    from tandem_operator.telemetry.logs import configure_logs

    configure_logs(settings.log_level)
    return asyncio.run(run(settings))


if __name__ == "__main__":
    sys.exit(main())
