"""Flags of `tandem-runtime prefill|decode|both`, checked and named."""

from __future__ import annotations

import argparse
import socket
from dataclasses import dataclass
from pathlib import Path

from tandem_runtime.contracts import names
from tandem_runtime.contracts.coefficients import Coefficients, read_coefficients
from tandem_runtime.contracts.durations import parse_duration
from tandem_runtime.contracts.flags import DRAFT_TOKENS, parse_count, parse_port, parse_speculation
from tandem_runtime.contracts.precision import Precision, add_precision_arguments, read_precision
from tandem_runtime.contracts.token_file import TokenFile, TokenFileError, TokenSource
from tandem_runtime.engine.executor import Executor, ModelError
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.transfer.identity import KvSettings
from tandem_runtime.transfer.preflight import split
from tandem_runtime.transfer.ring import choose_folder

DEFAULT_COEFFICIENTS = "laptop"
EMULATED_CONTEXT_TOKENS = 131072
DRAIN_SECONDS = 30.0
"""Kubernetes' default grace period; the operator renders what the deployment asks for."""
EMULATED_STEP_TOKENS = 2048
"""The coefficients are of large devices, which take larger chunks than a CPU."""


class ConfigError(Exception):
    """A flag is wrong; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One engine pod."""

    role: str
    executor: str
    model: Path | None
    coefficients: Coefficients | None
    max_context_tokens: int | None
    deterministic: bool
    precision: Precision
    pod_name: str
    address: str
    revision: str
    token: TokenSource
    bind: str
    internal_port: int
    kv_port: int
    metrics_port: int
    http_port: int
    model_name: str
    drain_seconds: float
    termination_log: Path
    load_seconds: float
    kv_scale: float | None
    step_tokens: int | None
    kv: KvSettings
    prefix_cache: bool = True
    draft_tokens: int = 0

    def scheduler(self) -> SchedulerSettings:
        """Of the engine."""
        default = EMULATED_STEP_TOKENS if self.executor == "emulated" else SchedulerSettings().step_tokens
        return SchedulerSettings(
            step_tokens=self.step_tokens or default,
            deterministic=self.deterministic,
            prefix_cache=self.prefix_cache,
            draft_tokens=self.draft_tokens,
            warm_up=self.executor == "torch",
        )

    def make_executor(self) -> Executor:
        """Imports torch only for the torch executor. Raises ModelError."""
        if self.coefficients is not None:
            from tandem_runtime.engine.emulated_executor import KV_SCALE, EmulatedExecutor

            return EmulatedExecutor(
                self.coefficients,
                max_context_tokens=self.max_context_tokens or EMULATED_CONTEXT_TOKENS,
                kv_scale=self.kv_scale or KV_SCALE,
                load_seconds=self.load_seconds,
            )
        if (
            self.model is None or not (self.model / "config.json").is_file()
        ):  # said before the seconds of importing torch
            raise ModelError(f"{self.model} has no config.json; --model takes a folder as Hugging Face saves it")
        from tandem_runtime.engine.torch_executor import TorchExecutor

        return TorchExecutor(
            self.model,
            dtype=self.precision.dtype,
            deterministic=self.deterministic,
            max_context_tokens=self.max_context_tokens,
            int8=self.precision.quantization == "int8-dynamic",
            kv_dtype=self.precision.kv_dtype,
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags of an engine pod."""
    add = parser.add_argument
    add("--model", type=Path, metavar="DIR", help="folder with config.json, *.safetensors and tokenizer.json")
    add("--executor", choices=("torch", "emulated"), default="torch", help="emulated needs no model (default: torch)")
    add("--coefficients", metavar="NAME_OR_FILE", help=f"emulated: its speed (default: {DEFAULT_COEFFICIENTS})")
    add("--max-context-tokens", type=parse_count, metavar="N", help="prompt and answer together (default: the model's)")
    add("--deterministic", action="store_true", help="float32, one sequence at a time: the same tokens everywhere")
    add_precision_arguments(parser)
    add(
        "--pod-name",
        default=socket.gethostname(),
        metavar="NAME",
        help="how logs and routers call it (default: host name)",
    )
    add("--address", default="127.0.0.1", metavar="IP", help="where other pods reach this one (default: %(default)s)")
    add("--revision", default="", metavar="REV", help="only routers of the same revision may use this pod")
    add("--token-file", type=Path, metavar="FILE", help="every connection must say what it holds; read again on change")
    add("--bind", default="0.0.0.0", metavar="IP", help="where its ports listen (default: %(default)s)")
    add(
        "--internal-port",
        type=parse_port,
        default=names.INTERNAL_PORT,
        metavar="PORT",
        help="for routers (%(default)s)",
    )
    add("--kv-port", type=parse_port, default=names.KV_PORT, metavar="PORT", help="for decode pods (%(default)s)")
    add(
        "--kv-shared-memory",
        default="off",
        metavar="auto|off|DIR",
        help="KV between pods that share this folder goes through memory (auto: /dev/shm; default: off)",
    )
    add(
        "--prefill-peer",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="may be repeated: kv port of prefill pods (a name: all its addresses), to which a decode pod connects at "
        "start, and a prefill pod when it becomes one",
    )
    add(
        "--metrics-port",
        type=parse_port,
        default=names.METRICS_PORT,
        metavar="PORT",
        help="probes, metrics (%(default)s)",
    )
    add(
        "--http-port",
        type=parse_port,
        default=names.HTTP_PORT,
        metavar="PORT",
        help="`both` only: OpenAI API (%(default)s)",
    )
    add("--model-name", default="", metavar="NAME", help="`both` only: the name clients use (default: the folder's)")
    add(
        "--drain-timeout",
        type=parse_duration,
        default=DRAIN_SECONDS,
        metavar="DURATION",
        help="after SIGTERM, how long requests may take to finish (default: 30s)",
    )
    add(
        "--termination-log",
        type=Path,
        default=Path(names.TERMINATION_LOG),
        metavar="FILE",
        help="why it ended, in one line",
    )
    add("--emulate-load", action="store_true", help="emulated: take as long to start as the coefficients say")
    add("--kv-scale", type=float, metavar="SHARE", help="emulated: share of the real KV bytes that is sent")
    add("--step-tokens", type=parse_count, metavar="N", help="prompt tokens computed in one step at most")
    add(
        "--speculate",
        type=parse_speculation,
        default=0,
        metavar="ngram[:K]",
        help="check up to K tokens at once that followed the same words before; while few decode and it pays "
        f"(K: {DRAFT_TOKENS}; default: off)",
    )
    add("--no-prefix-cache", action="store_true", help="compute every prompt anew, also what was computed before")


def read_settings(role: str, args: argparse.Namespace) -> ServerSettings:
    """Raises ConfigError."""
    coefficients: Coefficients | None = None
    if args.executor == "emulated":
        try:
            coefficients = read_coefficients(args.coefficients or DEFAULT_COEFFICIENTS)
        except ValueError as error:
            raise ConfigError(f"--coefficients: {error}") from error
    elif args.model is None:
        raise ConfigError("--model DIR is needed with --executor torch; --executor emulated needs none")
    if args.kv_scale is not None and not 0 < args.kv_scale <= 1:
        raise ConfigError(f"--kv-scale {args.kv_scale} must be above 0 and at most 1")
    precision = read_precision(args)
    if complaint := precision.complaint(args.executor, args.deterministic):
        raise ConfigError(complaint)
    return ServerSettings(
        role=role,
        executor=args.executor,
        model=args.model,
        coefficients=coefficients,
        max_context_tokens=args.max_context_tokens,
        deterministic=args.deterministic,
        precision=precision,
        pod_name=args.pod_name,
        address=args.address,
        revision=args.revision,
        token=_read_token(args.token_file),
        bind=args.bind,
        internal_port=args.internal_port,
        kv_port=args.kv_port,
        metrics_port=args.metrics_port,
        http_port=args.http_port,
        model_name=args.model_name or (args.model.name if args.model else "emulated"),
        drain_seconds=args.drain_timeout,
        termination_log=args.termination_log,
        load_seconds=coefficients.load_s if coefficients and args.emulate_load else 0.0,
        kv_scale=args.kv_scale,
        step_tokens=args.step_tokens,
        prefix_cache=not args.no_prefix_cache,
        draft_tokens=args.speculate,
        kv=_read_kv(args),
    )


def _read_kv(args: argparse.Namespace) -> KvSettings:
    flag = args.kv_shared_memory
    folder = choose_folder(flag)
    if folder is None and flag not in ("auto", "off"):
        raise ConfigError(f"--kv-shared-memory {flag}: not a folder that this process may write to")
    try:
        for peer in args.prefill_peer:
            split(peer)
    except ValueError as error:
        raise ConfigError(f"--prefill-peer: {error}") from error
    return KvSettings(shared_memory=folder, peers=tuple(args.prefill_peer))


def _read_token(path: Path | None) -> TokenSource:
    if path is None:
        return lambda: ""
    try:
        return TokenFile(path)
    except TokenFileError as error:
        raise ConfigError(f"--token-file: {error}") from error
