"""Which load and which fleet: a named scenario, a trace file, or the generator, with what the command line changes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tandem_operator.cli.settings_check import refuse_nonsense
from tandem_operator.scaling.observation import Warmth
from tandem_operator.scaling.settings import Settings
from tandem_operator.simulation.arrivals import Steps
from tandem_operator.simulation.lengths import CHAT, Drawn, Fixed, Lengths
from tandem_operator.simulation.pinned import COLD, LLAMA_70B_FP8_4XH100, TTFT_SOLO_FACTOR, fleet, settings
from tandem_operator.simulation.reading import read_workload
from tandem_operator.simulation.scenario import Scenario, Startup
from tandem_operator.simulation.scenarios import scenario
from tandem_operator.simulation.workload import Synthetic

STARTUP_PARTS = (0.05, 0.15, 0.65, 0.15)
"""Node, image, weights and warm-up as shares of a start-up that is given as one number."""
GENERATED_MINUTES = 30.0
"""Of a generated load whose length nobody gives."""
ONLY_OF = {
    "from_minute": ("trace",),
    "scale": ("trace",),
    "minutes": ("trace", "rate"),
    "lengths": ("rate",),
    "burstiness": ("rate",),
    "quick": ("scenario",),
}
"""Options that say something of one kind of load and would be lost on the others."""


def add_scenario_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose and change the scenario."""
    parser.add_argument("scenario", nargs="?", metavar="SCENARIO", help="a named one (default: S1); --list names them")
    parser.add_argument(
        "--traces", metavar="FOLDER", help="of the published traces; without it named scenarios imitate them"
    )
    load = parser.add_argument_group("load of one's own")
    load.add_argument("--trace", metavar="FILE", help="requests from a file: any of the public traces' column layouts")
    load.add_argument("--rate", type=float, metavar="N", help="generate N requests per second")
    load.add_argument(
        "--from-minute", type=float, default=0.0, metavar="N", help="of a trace: what is before is left out"
    )
    load.add_argument(
        "--minutes",
        type=float,
        metavar="N",
        help=f"length (default: {GENERATED_MINUTES:g} generated, a trace to its end)",
    )
    load.add_argument("--lengths", metavar="IN/OUT", help="tokens of prompts and answers (default: those of chat)")
    load.add_argument("--burstiness", type=float, default=1.0, metavar="CV", help="of gaps; 1 is Poisson (default)")
    load.add_argument("--scale", type=float, default=1.0, metavar="X", help="of a trace: X times its requests")
    fleets = parser.add_argument_group("fleet")
    fleets.add_argument("--settings", metavar="FILE", help="YAML or JSON with fields of the settings to change")
    fleets.add_argument("--startup", type=float, metavar="SECONDS", help="median start-up of a pod")
    fleets.add_argument("--start", metavar="P:D", help="pods that are ready at the start")
    fleets.add_argument("--quick", action="store_true", help="the short form of a named scenario")


def chosen_scenario(options: argparse.Namespace) -> Scenario:
    """Raises ValueError or OSError that says what is wrong."""
    own = [name for name in ("scenario", "trace", "rate") if getattr(options, name) is not None]
    if len(own) > 1:
        raise ValueError(f"one load at a time: {' and '.join(own)} were given")
    _refuse_lost(options, own[0] if own else "scenario")
    if options.trace:
        found = _traced(options)
    elif options.rate is not None:
        found = _generated(options)
    else:
        found = scenario(options.scenario or "S1", options.quick, Path(options.traces) if options.traces else None)
    if options.settings:
        found = replace(found, settings=changed_settings(found.settings, options.settings))
    if options.startup is not None:
        found = replace(found, fleet=replace(found.fleet, startup=_startup(options.startup)))
    if options.start:
        prefill, decode = _pair(options.start, ":", "--start")
        found = replace(found, prefill_start=prefill, decode_start=decode)
    return found


def _refuse_lost(options: argparse.Namespace, load: str) -> None:
    """An option that does nothing here is a mistake, not a wish that may be forgotten."""
    unsaid = {"from_minute": 0.0, "scale": 1.0, "burstiness": 1.0, "quick": False}
    for name, loads in ONLY_OF.items():
        if load not in loads and getattr(options, name) != unsaid.get(name):
            given = "a named scenario" if load == "scenario" else f"--{load}"
            meant = " or ".join("a named scenario" if one == "scenario" else f"--{one}" for one in loads)
            raise ValueError(f"--{name.replace('_', '-')} changes nothing of {given}; it goes with {meant}")


def _traced(options: argparse.Namespace) -> Scenario:
    """A file of requests, or one of ServeGen's."""
    path, scale = Path(options.trace), _positive(options.scale, "--scale")
    start_s = 60.0 * options.from_minute
    length_s = 60.0 * _positive(options.minutes, "--minutes") if options.minutes is not None else 0.0
    if start_s < 0:
        raise ValueError(f"--from-minute is {options.from_minute:g}; give 0 or more")
    workload = read_workload(path, scale, start_s, length_s)
    return Scenario(
        name=path.name,
        describe=f"{workload.end_s / 60:.0f} minutes of a trace" + (f", {scale:g} times" if scale != 1.0 else ""),
        workload=workload,
        settings=settings(),
        fleet=fleet(COLD, prefix_cache_tokens=LLAMA_70B_FP8_4XH100.kv_tokens if workload.block_tokens else 0),
        ttft_solo_factor=TTFT_SOLO_FACTOR,
    )


def _generated(options: argparse.Namespace) -> Scenario:
    rate = _positive(options.rate, "--rate")
    minutes = GENERATED_MINUTES if options.minutes is None else _positive(options.minutes, "--minutes")
    lengths: Lengths = CHAT
    if options.lengths:
        lengths = Fixed(*_pair(options.lengths, "/", "--lengths"))
    cv = _positive(options.burstiness, "--burstiness")
    what = "chat" if isinstance(lengths, Drawn) else f"{options.lengths} tokens"
    return Scenario(
        name="generated",
        describe=f"{rate:g} requests/s of {what} for {minutes:g} minutes",
        workload=Synthetic(Steps(((0.0, rate),)), lengths, minutes * 60.0, cv),
        settings=settings(),
        fleet=fleet(COLD),
        ttft_solo_factor=TTFT_SOLO_FACTOR,
    )


def changed_settings(before: Settings, path: str) -> Settings:
    """The fields of the file over those of the scenario. Raises ValueError naming the field that is wrong."""
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file: {error.reason} at byte {error.start}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} holds no fields; write for instance: prefill: {{max_replicas: 12}}")
    merged = _merge(msgspec.to_builtins(before), given, path, "")
    try:
        changed = msgspec.convert(merged, Settings)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}") from error
    refuse_nonsense(changed, path)
    return changed


def _merge(before: dict[str, Any], given: dict[str, Any], path: str, place: str) -> dict[str, Any]:
    merged = dict(before)
    for key, value in given.items():
        if key not in before:
            raise ValueError(f"{path}: {place or 'the settings'} has no field {key!r}; it has {', '.join(before)}")
        old = before[key]
        deeper = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(old, value, path, f"{place}.{key}".lstrip(".")) if deeper else value
    return merged


def _startup(seconds: float) -> Startup:
    if seconds < 0:
        raise ValueError(f"--startup is {seconds:g}; give 0 or more seconds")
    warmth: Warmth = "wake" if seconds <= 5 else "warm" if seconds <= 60 else "cold"
    node, image, weights, warmup = (seconds * part for part in STARTUP_PARTS)
    return Startup(node_s=node, image_s=image, weights_s=weights, warmup_s=warmup, warmth=warmth)


def _pair(text: str, mark: str, option: str) -> tuple[int, int]:
    parts = text.split(mark)
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"{option} is {text!r}; write two whole numbers above 0, as in 3{mark}2")
    return int(parts[0]), int(parts[1])


def _positive(value: float, option: str) -> float:
    if not 0 < value < float("inf"):
        raise ValueError(f"{option} is {value:g}; give a number above 0")
    return value
