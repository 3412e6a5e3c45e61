"""`tandem-runtime bench load`: an open-loop load on an OpenAI server, and what its clients got."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import uvloop

from tandem_runtime.bench.load import Load, Target
from tandem_runtime.bench.results import Results, table
from tandem_runtime.bench.schedule import Due, Length, poisson_or_gamma, read_trace, synthetic
from tandem_runtime.contracts.classes import Classes, read_classes
from tandem_runtime.contracts.durations import parse_duration
from tandem_runtime.contracts.goodput import SloClass
from tandem_runtime.contracts.names import EXIT_BAD_CONFIG

EXIT_VOID = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    kinds = parser.add_subparsers(dest="bench", metavar="BENCH", required=True)
    load = kinds.add_parser("load", help="open-loop load: requests leave when they are due, not when the last is done")
    load.add_argument("--url", required=True, metavar="URL", help="of the server, such as http://127.0.0.1:8000")
    load.add_argument("--model", required=True, metavar="NAME", help="name that clients use")
    load.add_argument("--rate", type=parse_positive, metavar="R", help="requests per second")
    load.add_argument("--cv", type=parse_positive, default=1.0, help="of the gaps: 1 Poisson (default), more: bursts")
    load.add_argument("--duration", type=parse_duration, metavar="DURATION", help="of the arrivals (default 30s)")
    load.add_argument("--trace", type=Path, metavar="FILE", help="arrivals and lengths from a trace (CSV, JSON lines)")
    load.add_argument("--speed", type=parse_positive, default=1.0, metavar="X", help="of the trace (default 1)")
    load.add_argument("--prompt-tokens", type=parse_length, default=Length(512), metavar="MEAN[:CV]", help="(512)")
    load.add_argument("--output-tokens", type=parse_length, default=Length(128), metavar="MEAN[:CV]", help="(128)")
    load.add_argument("--class", dest="mix", type=parse_share, action="append", default=[], metavar="NAME[=WEIGHT]",
                      help="class of requests; may be repeated")  # fmt: skip
    load.add_argument("--classes", type=Path, metavar="FILE", help="objectives by class, the router's own file")
    load.add_argument("--ttft", type=parse_duration, metavar="DURATION", help="objective, without --classes")
    load.add_argument("--tpot", type=parse_duration, metavar="DURATION", help="objective, without --classes")
    load.add_argument("--timeout", type=parse_duration, default=600.0, metavar="DURATION", help="of a request (600s)")
    load.add_argument("--header", type=parse_header, action="append", default=[], metavar="'NAME: VALUE'")
    load.add_argument("--seed", type=int, default=0, help="the same seed sends the same load (default 0)")


def run(args: argparse.Namespace) -> int:
    """0; 2 for wrong flags, 4 when the machine was too busy for the figures to mean anything."""
    try:
        target = make_target(args)
        classes = make_classes(args)
        schedule = make_schedule(args)
    except ValueError as error:
        print(f"tandem-runtime bench load: {error}", file=sys.stderr)
        return EXIT_BAD_CONFIG
    raise_file_limit()
    results = Results(classes)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(drive(target, schedule, results, args.seed))
    print(table(result))
    print(json.dumps(result))
    return EXIT_VOID if result["void"] else 0


async def drive(target: Target, schedule: Iterable[Due], results: Results, seed: int) -> dict[str, object]:
    """The figures of one run."""
    load = Load(target, results.add, Random(seed + 1))
    seconds = await load.run(schedule)
    return results.as_dict(seconds, load.most_open)


def make_target(args: argparse.Namespace) -> Target:
    """Raises ValueError."""
    parts = urlsplit(args.url if "//" in args.url else f"//{args.url}")
    if parts.scheme not in ("", "http") or not parts.hostname:
        raise ValueError(f"--url {args.url!r} is not of the form http://HOST:PORT")
    path = f"{parts.path.rstrip('/').removesuffix('/v1')}/v1/completions"
    return Target(parts.hostname, parts.port or 80, args.model, path, dict(args.header), args.timeout)


def make_classes(args: argparse.Namespace) -> Classes:
    """Raises ValueError."""
    if args.classes is not None:
        if args.ttft is not None or args.tpot is not None:
            raise ValueError("--ttft and --tpot stand in the file of --classes; give one or the other")
        classes = read_classes(args.classes)
        unknown = [name for name, _ in args.mix if classes.find(name) is None]
        if unknown:
            raise ValueError(f"--class {unknown[0]}: {args.classes} has no such class")
        return classes
    if args.ttft is None and args.tpot is None:
        return Classes()
    default = SloClass()
    slo = SloClass(
        ttft_base_s=default.ttft_base_s if args.ttft is None else args.ttft,
        tpot_s=default.tpot_s if args.tpot is None else args.tpot,
    )
    classes = Classes([slo])
    classes.configured = False  # every name will do
    return classes


def make_schedule(args: argparse.Namespace) -> Iterable[Due]:
    """Raises ValueError."""
    if args.trace is not None:
        if args.rate is not None:
            raise ValueError("--trace has its own rate; --speed changes it")
        try:
            return read_trace(args.trace, args.speed, args.duration)
        except OSError as error:
            raise ValueError(f"--trace {args.trace}: {error.strerror}") from error
    if args.rate is None:
        raise ValueError("--rate R or --trace FILE is needed")
    random = Random(args.seed)
    times = poisson_or_gamma(args.rate, args.cv, args.duration or 30.0, random)
    return synthetic(times, args.prompt_tokens, args.output_tokens, args.mix, random)


def raise_file_limit() -> None:
    """Each stream is an open file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def parse_positive(words: str) -> float:
    """For argparse."""
    try:
        value = float(words)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{words!r} is not a number above 0")
    return value


def parse_length(words: str) -> Length:
    """MEAN or MEAN:CV."""
    mean, _, cv = words.partition(":")
    return Length(parse_positive(mean), parse_positive(cv) if cv else 0.0)


def parse_share(words: str) -> tuple[str, float]:
    """NAME or NAME=WEIGHT."""
    name, _, weight = words.partition("=")
    return name, parse_positive(weight) if weight else 1.0


def parse_header(words: str) -> tuple[str, str]:
    """NAME: VALUE."""
    name, colon, value = words.partition(":")
    if not colon or "\r" in words or "\n" in words:
        raise argparse.ArgumentTypeError(f"{words!r} is not of the form 'NAME: VALUE'")
    return name.strip(), value.strip()
