"""`tandem-runtime serve`: router, prefill and decode as local processes, started again when they die.

Ctrl-C ends all and leaves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from tandem_runtime.contracts import names
from tandem_runtime.contracts.classes import read_classes
from tandem_runtime.contracts.coefficients import read_coefficients
from tandem_runtime.contracts.endpoints import Endpoints, PodEndpoint
from tandem_runtime.contracts.flags import parse_count, parse_natural, parse_port, parse_speculation
from tandem_runtime.contracts.precision import add_precision_arguments, read_precision
from tandem_runtime.router.children import Child, keep, stop_all

HOST: Final = "127.0.0.1"
REVISION: Final = "local"
POD_PORTS: Final = 10
"""Ports of pod number i start at port_base + POD_PORTS * (i + 1)."""
READY_SECONDS: Final = 600.0
"""Large weights take minutes to read; a pod that is not ready by then is stuck."""
GRACE_SECONDS: Final = 5.0
"""After Ctrl-C: answers that run may finish for so long; a second Ctrl-C does not wait."""
LAST_LINES_SHOWN: Final = 8
EMULATED_COEFFICIENTS: Final = "laptop"


class ServeError(Exception):
    """The message says what is wrong and what to do; `code` is the exit code."""

    def __init__(self, message: str, code: int = names.EXIT_BAD_CONFIG) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class PodPlan:
    """One engine pod and its ports."""

    name: str
    role: str
    internal_port: int
    kv_port: int
    metrics_port: int


@dataclass(frozen=True, slots=True)
class ServePlan:
    """Everything that will run: decided before anything starts."""

    http_port: int
    metrics_port: int
    pods: list[PodPlan]

    def ports(self) -> list[int]:
        """All of them."""
        pods = [port for pod in self.pods for port in (pod.internal_port, pod.kv_port, pod.metrics_port)]
        return [self.http_port, self.metrics_port, *pods]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder; not needed with --executor emulated")
    parser.add_argument("--model-name", metavar="NAME", help="name that clients use (default: the folder's)")
    parser.add_argument(
        "--port-base",
        type=parse_port,
        default=names.HTTP_PORT,
        metavar="PORT",
        help="HTTP port (%(default)s); others follow",
    )
    parser.add_argument(
        "--prefill", type=parse_natural, default=1, metavar="N", help="prefill pods (1; with 0 decode computes prompts)"
    )
    parser.add_argument("--decode", type=parse_count, default=1, metavar="N", help="decode pods (1)")
    parser.add_argument("--executor", choices=("torch", "emulated"), default="torch", help="default: torch")
    parser.add_argument("--coefficients", metavar="NAME_OR_FILE", help="of the emulated executor (default: laptop)")
    parser.add_argument("--deterministic", action="store_true", help="tokens do not depend on batch or pod (float32)")
    add_precision_arguments(parser)
    parser.add_argument(
        "--max-context-tokens", type=parse_count, metavar="N", help="prompt and answer together (default: the model's)"
    )
    parser.add_argument(
        "--speculate", type=parse_speculation, default=0, metavar="ngram[:K]", help="as of a pod (default: off)"
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="service classes with their objectives (JSON)")
    parser.add_argument("--api-keys", type=Path, metavar="DIR", help="ask for API keys: one file each, in this folder")
    parser.add_argument("--verbose", action="store_true", help="show the logs of all processes")


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM: 0. A child that dies before all are ready ends all with its exit code."""
    try:
        check(args)
        plan = make_plan(args.port_base, args.prefill, args.decode)
        check_ports(plan.ports())
        return asyncio.run(serve(args, plan))
    except KeyboardInterrupt:
        return 130  # a second Ctrl-C: nobody waits any more, the kernel ends the children
    except ServeError as error:
        print(f"tandem-runtime serve: {error}", flush=True)
        return error.code


def check(args: argparse.Namespace) -> None:
    """Raises ServeError."""
    if args.executor == "torch" and args.model is None:
        raise ServeError("--model DIR is missing (`tandem-runtime make-model DIR` writes a small one)")
    if args.model is not None and not args.model.is_dir():
        raise ServeError(f"--model {args.model} is not a folder")
    if args.executor == "torch" and not (args.model / "config.json").is_file():
        # Said here: every process would say it, and which of them is heard first is chance.
        text = f"--model {args.model} has no config.json; it takes a folder as Hugging Face saves it"
        raise ServeError(text, names.EXIT_BAD_MODEL)
    if args.classes is not None:
        try:
            read_classes(args.classes)
        except ValueError as error:
            raise ServeError(f"--classes: {error}") from error
    if args.executor == "emulated":
        try:
            read_coefficients(args.coefficients or EMULATED_COEFFICIENTS)
        except ValueError as error:
            raise ServeError(f"--coefficients: {error}") from error


def make_plan(port_base: int, prefill: int, decode: int) -> ServePlan:
    """Raises ServeError when the ports do not fit."""
    roles = ["prefill"] * prefill + ["decode"] * decode
    starts = [port_base + POD_PORTS * (index + 1) for index in range(len(roles))]
    if not port_base > 0 or starts[-1] + 2 > 65535:
        raise ServeError(f"--port-base {port_base} leaves no room for {len(roles)} pods below 65536")
    numbers = [*range(prefill), *range(decode)]
    pods = [
        PodPlan(f"{role}-{number}", role, start, start + 1, start + 2)
        for role, number, start in zip(roles, numbers, starts, strict=True)
    ]
    return ServePlan(port_base, port_base + 1, pods)


def check_ports(ports: Sequence[int]) -> None:
    """Raises ServeError naming the first port that is taken."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise ServeError(
                    f"port {port} cannot be used ({error.strerror}); choose other ports with --port-base "
                    f"(all of {min(ports)} to {max(ports)} are needed)"
                ) from error


async def serve(args: argparse.Namespace, plan: ServePlan) -> int:
    """Returns the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="tandem-") as directory:
        children = make_children(args, plan, Path(directory))
        try:
            return await watch(args, plan, children, stop)
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
            await stop_all(children, GRACE_SECONDS)


async def watch(args: argparse.Namespace, plan: ServePlan, children: list[Child], stop: asyncio.Event) -> int:
    """Starts the children, and again when they end; returns when asked to stop or when that would be of no use."""
    loop = asyncio.get_running_loop()
    for child in children:
        await child.start()
    stopping = loop.create_task(stop.wait())
    announcing = loop.create_task(announce(args, plan))
    endings = {loop.create_task(keep(child, announcing.done, report_restart)): child for child in children}
    waiting: set[asyncio.Task[Any]] = {stopping, announcing, *endings}
    try:
        while True:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task, child in endings.items():
                if task in done:
                    report_death(child, task.result())
                    return task.result() or 1
            if announcing in done:
                announcing.result()
            if stopping in done:
                print("stopping ...", flush=True)
                return 0
    finally:
        for task in waiting:
            task.cancel()


def make_children(args: argparse.Namespace, plan: ServePlan, directory: Path) -> list[Child]:
    """Writes token and endpoint file; the directory is readable by this user alone."""
    token_file, endpoints_file = directory / "token", directory / "endpoints.json"
    token_file.write_text(secrets.token_hex(16))
    pods = [PodEndpoint(pod.name, f"{HOST}:{pod.internal_port}", pod.role, REVISION) for pod in plan.pods]
    endpoints_file.write_bytes(msgspec.json.encode(Endpoints(pods=pods)))
    common = ["--bind", HOST, "--revision", REVISION, "--token-file", str(token_file)]
    if args.executor == "torch":  # emulated pods speak the bundled tokenizer, so the router must too
        common += ["--model", str(args.model)]
    if args.max_context_tokens is not None:
        common += ["--max-context-tokens", str(args.max_context_tokens)]
    engine = ["--executor", args.executor]
    if args.executor == "emulated":
        engine += ["--coefficients", args.coefficients or EMULATED_COEFFICIENTS]
    if args.deterministic:
        engine += ["--deterministic"]
    engine += read_precision(args).flags()
    if args.speculate:
        engine += ["--speculate", f"ngram:{args.speculate}"]
    router = ["router", *common, "--endpoints", str(endpoints_file), "--model-name", model_name(args)]
    if args.classes is not None:
        router += ["--classes", str(args.classes)]
    if args.api_keys is not None:
        router += ["--api-keys", str(args.api_keys)]
    router += ["--http-port", str(plan.http_port), "--metrics-port", str(plan.metrics_port)]
    children = [Child("router", router, verbose=args.verbose)]
    peers = [flag for pod in plan.pods if pod.role == "prefill" for flag in ("--prefill-peer", f"{HOST}:{pod.kv_port}")]
    engine += ["--kv-shared-memory", "auto"]  # all processes are on this host
    for pod in plan.pods:
        ports = ["--internal-port", str(pod.internal_port), "--kv-port", str(pod.kv_port)]
        ports += ["--metrics-port", str(pod.metrics_port), "--pod-name", pod.name, "--address", HOST]
        children.append(Child(pod.name, [pod.role, *common, *engine, *ports, *peers], verbose=args.verbose))
    return children


def model_name(args: argparse.Namespace) -> str:
    """What clients say."""
    if args.model_name:
        return str(args.model_name)
    return args.model.resolve().name if args.model is not None else "emulated"


async def announce(args: argparse.Namespace, plan: ServePlan) -> None:
    """Prints each process as it becomes ready, then how to ask. Raises ServeError when one never does."""
    started = time.monotonic()
    print(f"starting router, {args.prefill} prefill, {args.decode} decode ({args.executor})", flush=True)
    parts = {"router": plan.metrics_port, **{pod.name: pod.metrics_port for pod in plan.pods}}
    await asyncio.gather(*[announce_one(name, port, started) for name, port in parts.items()])
    await wait_connected(plan, started)
    url = f"http://{HOST}:{plan.http_port}"
    body = f'{{"model": "{model_name(args)}", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'
    key = "-H 'Authorization: Bearer KEY' " if args.api_keys is not None else ""
    print(
        f"ready in {time.monotonic() - started:.1f} s: {url}/v1 (metrics: http://{HOST}:{plan.metrics_port}/metrics)\n"
        f"  curl -N {url}/v1/chat/completions {key}-H 'Content-Type: application/json' -d '{body}'\n"
        "Ctrl-C ends all.",
        flush=True,
    )


async def announce_one(name: str, port: int, started: float) -> None:
    """Asks /readyz until it says 200."""
    while (await get(port, "/readyz"))[0] != 200:
        await wait_on(name, started)
    print(f"  {name:<12} ready in {time.monotonic() - started:.1f} s", flush=True)


async def wait_connected(plan: ServePlan, started: float) -> None:
    """Until the router uses every pod: the first request already takes the way of all others."""
    while True:
        status, body = await get(plan.metrics_port, "/signals")
        if status == 200 and sum(pod["ready"] for pod in msgspec.json.decode(body)["pods"]) == len(plan.pods):
            return
        await wait_on("the router's view of the pods", started)


async def wait_on(what: str, started: float) -> None:
    """A short pause. Raises ServeError when it takes too long."""
    if time.monotonic() - started > READY_SECONDS:
        raise ServeError(f"{what} is not ready after {READY_SECONDS:g} s; --verbose shows the logs", 1)
    await asyncio.sleep(0.05)


async def get(port: int, path: str) -> tuple[int, bytes]:
    """HTTP status and body; (0, b"") when nobody answers."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                return int(head.split()[1]), body
            finally:
                writer.close()
    except (OSError, TimeoutError, IndexError, ValueError):
        return 0, b""


def report_restart(child: Child, code: int, pause_seconds: float) -> None:
    """The others go on, and requests wait."""
    print(f"{child.name} ended with code {code}; it starts again in {pause_seconds:.1f} s", flush=True)


def report_death(child: Child, code: int) -> None:
    """What it said last; a bad model is one sentence already."""
    lines = [line for line in child.last_lines if line]
    if code == names.EXIT_BAD_MODEL:
        sentences = [line for line in lines if not line.startswith("{")]  # the others are its log
        print(f"{child.name}: {sentences[-1] if sentences else 'the model cannot be loaded'}", flush=True)
        return
    print(f"{child.name} ended with code {code}; its last lines:", flush=True)
    for line in lines[-LAST_LINES_SHOWN:]:
        print(f"  {line}", flush=True)
