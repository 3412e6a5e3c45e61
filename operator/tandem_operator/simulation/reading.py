"""A file of any known layout as a workload: requests one by one, or ServeGen's descriptions of rates and clients."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from tandem_operator.simulation.arrivals import Lines
from tandem_operator.simulation.loads import DAY_LENGTHS
from tandem_operator.simulation.servegen import WINDOW_S, read_servegen
from tandem_operator.simulation.traced import Traced
from tandem_operator.simulation.traces import TraceError, open_trace, read_trace
from tandem_operator.simulation.workload import Synthetic, Workload

CLIENTS, TOKENS = "clients", "tokens"
"""In the names of ServeGen's two files that belong together."""
DEFAULT_LENGTH_S: Final = 3600.0
"""Of a description of a week, unless told otherwise."""
TOTAL_CV: Final = 1.3
"""Of the gaps of all clients together, where only their sum is told."""


def read_workload(path: Path, scale: float = 1.0, start_s: float = 0.0, length_s: float = 0.0) -> Workload:
    """`scale`: times the rate; `length_s` 0: to the end of a trace, an hour of a description. Raises TraceError."""
    header = _header(path)
    if {"client", "window_start_s"} <= header:
        clients = path.with_name(path.name.replace(TOKENS, CLIENTS))
        tokens = path.with_name(clients.name.replace(CLIENTS, TOKENS))
        missing = [str(file) for file in (clients, tokens) if not file.is_file() or clients == tokens]
        if missing:
            raise TraceError(f"{path}: ServeGen's layout is a file of clients and one of tokens; missing: {missing[0]}")
        return _not_empty(path, read_servegen(clients, tokens, scale, start_s, length_s or DEFAULT_LENGTH_S))
    if {"window_start_s", "total_rate_rps"} <= header:
        return _read_totals(path, scale, start_s, length_s or DEFAULT_LENGTH_S)
    return _not_empty(path, Traced(read_trace(path), scale, start_s, length_s))


def _header(path: Path) -> set[str]:
    try:
        with open_trace(path) as file:
            first = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path} cannot be read: {error}") from error
    return {name.strip().lower() for name in first.split(",")}


def _read_totals(path: Path, scale: float, start_s: float, length_s: float) -> Workload:
    """Rates alone: lengths are those of such a day in general."""
    points: list[tuple[float, float]] = []
    with open_trace(path) as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                at_s, rate = float(row["window_start_s"]), float(row["total_rate_rps"])
            except (TypeError, ValueError) as error:
                raise TraceError(f"{path}, line {number}: {error}") from None
            points.append((at_s + WINDOW_S / 2 - start_s, rate * scale))
    if not points or points[-1][0] + WINDOW_S / 2 <= 0:
        raise TraceError(f"{path} has nothing after {start_s:g} s")
    return Synthetic(Lines(tuple(sorted(points))), DAY_LENGTHS, length_s, cv=TOTAL_CV)


def _not_empty(path: Path, workload: Workload) -> Workload:
    if workload.end_s <= 0 or next(workload.requests(0), None) is None:
        raise TraceError(f"{path} has no requests in the part that was asked for")
    return workload
