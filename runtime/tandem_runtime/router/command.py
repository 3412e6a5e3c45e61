"""`tandem-runtime router`: flags, files, exit codes."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import secrets
import socket
import sys
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from tandem_runtime.contracts import names
from tandem_runtime.contracts.classes import read_classes
from tandem_runtime.contracts.durations import parse_duration
from tandem_runtime.contracts.flags import parse_count, parse_natural, parse_port
from tandem_runtime.contracts.token_file import TokenFile, TokenFileError
from tandem_runtime.openai.front import FrontSettings
from tandem_runtime.policy.fleet import ChoiceLaw
from tandem_runtime.policy.waiting import QueueLaw, QueueLimits
from tandem_runtime.router.app import NoKeys, Ports, PortTaken, RouterApp, serve
from tandem_runtime.router.settings import RouterSettings
from tandem_runtime.telemetry.logs import configure_logging
from tandem_runtime.text.tokenizer import TokenizerError, load_tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the role; the operator renders them."""
    limits = QueueLimits()
    parser.add_argument("--endpoints", type=Path, required=True, metavar="FILE", help="which pods there are (JSON)")
    parser.add_argument("--model-name", required=True, metavar="NAME", help="name that clients use")
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="tokenizer files and config.json; absent: bundled byte tokenizer"
    )
    parser.add_argument("--revision", required=True, metavar="REV", help="only pods of this revision are used")
    parser.add_argument(
        "--token-file", type=Path, required=True, metavar="FILE", help="said to every pod; read again on change"
    )
    parser.add_argument(
        "--wait-for-pods",
        type=parse_duration,
        default=limits.wait_for_pods_seconds,
        metavar="DURATION",
        help="how long a request waits while there is no decode pod (default 120s)",
    )
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="service classes (JSON); read again on change",
    )
    parser.add_argument(
        "--api-keys",
        type=Path,
        metavar="DIR",
        help="ask for API keys: a folder with one file for each (`tandem-runtime keys`), read again on change; "
        "without it everybody may ask",
    )
    parser.add_argument(
        "--max-body-bytes",
        type=parse_count,
        default=FrontSettings("").max_body_bytes,
        metavar="N",
        help="larger requests are answered with 413 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-prompt-tokens", type=parse_count, metavar="N", help="longer prompts get 400 (default: the context)"
    )
    parser.add_argument(
        "--max-context-tokens", type=parse_count, metavar="N", help="prompt and answer together (default: the model's)"
    )
    parser.add_argument(
        "--max-queue-requests",
        type=parse_count,
        default=limits.max_requests,
        metavar="N",
        help="more that wait are answered with 429 (default: %(default)s)",
    )
    parser.add_argument(
        "--short-prompt-tokens",
        type=parse_natural,
        default=0,
        metavar="N",
        help="prompts of up to N uncached tokens are computed by decode pods (default 0: all go to prefill pods)",
    )
    parser.add_argument(
        "--shed-late",
        action="store_true",
        help="answer 429 to requests whose objective has passed while they waited, instead of serving them last",
    )
    parser.add_argument(
        "--drain-timeout",
        type=parse_duration,
        default=names.DEFAULT_REQUEST_TIMEOUT_SECONDS,
        metavar="DURATION",
        help="after SIGTERM, how long requests may take to finish (default: their timeout, 600s)",
    )
    parser.add_argument("--bind", default="0.0.0.0", metavar="IP", help="where its ports listen (default: %(default)s)")
    add_port = partial(parser.add_argument, type=parse_port, metavar="PORT")
    add_port("--http-port", default=names.HTTP_PORT, help="OpenAI API (%(default)s)")
    add_port("--metrics-port", default=names.METRICS_PORT, help="probes, metrics, signals (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM. Returns 0, or what names.EXIT_... says."""
    router_id = os.environ.get("HOSTNAME") or socket.gethostname()
    configure_logging("router", router_id)
    try:
        token = TokenFile(args.token_file)
    except TokenFileError as error:
        return fail(f"--token-file: {error}", names.EXIT_BAD_CONFIG)
    try:
        classes = read_classes(args.classes) if args.classes else None
    except ValueError as error:
        return fail(f"--classes: {error}", names.EXIT_BAD_CONFIG)
    try:
        tokenizer = load_tokenizer(args.model)
        context_tokens = args.max_context_tokens or read_context_tokens(args.model)
    except (TokenizerError, ValueError) as error:
        return fail(str(error), names.EXIT_BAD_MODEL)
    settings = RouterSettings(
        revision=args.revision,
        token=token,
        router_id=router_id,
        incarnation=secrets.token_hex(8),
        max_context_tokens=context_tokens,
        limits=QueueLimits(max_requests=args.max_queue_requests, wait_for_pods_seconds=args.wait_for_pods),
        queue=QueueLaw(sheds_late=args.shed_late, short_tokens=args.short_prompt_tokens),
        choice=ChoiceLaw(short_tokens=args.short_prompt_tokens),
    )
    ports = Ports(args.bind, args.http_port, args.metrics_port)
    tune_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def main() -> None:
            front = FrontSettings(
                model_name=args.model_name,
                max_body_bytes=args.max_body_bytes,
                max_prompt_tokens=args.max_prompt_tokens,
            )
            files = {"classes_file": args.classes, "keys_folder": args.api_keys}
            app = RouterApp(settings, front, tokenizer, args.endpoints, ports, classes, **files)
            await serve(app, args.drain_timeout)

        try:
            runner.run(main())
        except PortTaken as error:
            return fail(str(error), names.EXIT_BAD_CONFIG)
        except NoKeys as error:
            return fail(str(error), names.EXIT_NO_KEYS)
    return 0


def tune_collector() -> None:
    """Requests make few cycles, and a look at all that 10,000 connections hold stops every stream for 100 ms."""
    gc.collect()
    gc.freeze()  # what start-up made stays anyway
    gc.set_threshold(10_000, 20, 50)


def read_context_tokens(model_dir: Path | None) -> int | None:
    """max_position_embeddings of config.json; None where it is not said. Raises ValueError naming the file."""
    if model_dir is None or not (path := model_dir / "config.json").is_file():
        return None

    class Config(msgspec.Struct):
        max_position_embeddings: int | None = None

    try:
        return msgspec.json.decode(path.read_bytes(), type=Config).max_position_embeddings
    except (OSError, msgspec.DecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def fail(message: str, code: int) -> int:
    """One line for people: stderr, and where Kubernetes shows why a container ended."""
    print(f"tandem-runtime router: {message}", file=sys.stderr)
    log = Path(names.TERMINATION_LOG)
    if log.exists() and os.access(log, os.W_OK):  # only in a pod: never make that file on a machine of its own
        log.write_text(message)
    return code
