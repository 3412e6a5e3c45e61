"""ServeGen's description of production traffic: clients with a rate, gaps and lengths per ten-minute window."""

from __future__ import annotations

import csv
import gzip
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from math import gamma
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from tandem_operator.simulation.traces import TraceError
from tandem_operator.simulation.workload import Request

WINDOW_S: Final = 600.0
SHARES: Final[tuple[float, ...]] = (0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
COLUMNS: Final = ("q05", "q25", "q50", "q75", "q90", "q95", "q99")
FLOOR_OF_Q05: Final = 0.5
TOP_OF_Q99: Final = 1.5
"""The file tells no smallest and no largest length."""
CLIENT_COLUMNS: Final = ("client", "window_start_s", "rate_rps", "cv", "pattern", "p1", "p2")
TOKEN_COLUMNS: Final = ("client", "window_start_s", "field", "mean", *COLUMNS)


class Gaps(NamedTuple):
    """One client in one window."""

    client: str
    rate_per_s: float
    is_weibull: bool
    shape: float


Curve = tuple[float, ...]
"""Tokens at SHARES."""


@dataclass(frozen=True, slots=True)
class ServeGen:
    """`scale`: times the rate, the unevenness of each client's gaps kept. From `start_s`, for `length_s`."""

    windows: dict[int, list[Gaps]]
    """By number of the window."""
    lengths: dict[str, tuple[list[float], list[tuple[Curve, Curve]]]]
    """By client: starts of windows, prompt and answer lengths from then on. Clients that are not in it borrow."""
    scale: float
    start_s: float
    length_s: float
    block_tokens: int = 0

    @property
    def end_s(self) -> float:
        """No request comes after."""
        return self.length_s

    def rate_per_s(self, t_s: float) -> float:
        """Of all clients together, at a time of the run."""
        gaps = self.windows.get(int((self.start_s + t_s) // WINDOW_S), [])
        return self.scale * sum(gap.rate_per_s for gap in gaps)

    def requests(self, seed: int) -> Iterator[Request]:
        """In order of arrival, from time 0."""
        end_s = self.start_s + self.length_s
        for window in range(int(self.start_s // WINDOW_S), int(end_s // WINDOW_S) + 1):
            random = Random(f"{seed} window {window}")
            found = [item for gaps in self.windows.get(window, []) for item in self._client(gaps, window, random)]
            found.sort(key=itemgetter(0))
            for at_s, client in found:
                if self.start_s <= at_s <= end_s:
                    prompt, output = self._curves(client, at_s)
                    yield Request(at_s - self.start_s, _draw(prompt, random), _draw(output, random))

    def _client(self, gaps: Gaps, window: int, random: Random) -> Iterator[tuple[float, str]]:
        rate = gaps.rate_per_s * self.scale
        mean = gamma(1 + 1 / gaps.shape) if gaps.is_weibull else gaps.shape
        unit = 1 / (rate * mean)
        at_s = (
            random.random() / rate if rate * WINDOW_S > 1 else random.random() * WINDOW_S / max(rate * WINDOW_S, 1e-9)
        )
        while at_s < WINDOW_S:
            yield window * WINDOW_S + at_s, gaps.client
            gap = random.weibullvariate(unit, gaps.shape) if gaps.is_weibull else random.gammavariate(gaps.shape, unit)
            at_s += gap

    def _curves(self, client: str, at_s: float) -> tuple[Curve, Curve]:
        starts, curves = self.lengths[client]
        return curves[max(0, bisect_right(starts, at_s) - 1)]


def read_servegen(clients: Path, tokens: Path, scale: float, start_s: float, length_s: float) -> ServeGen:
    """Raises TraceError. Clients without lengths, a third of the load, borrow those of clients that have some."""
    windows: dict[int, list[Gaps]] = {}
    for number, row in _rows(clients, CLIENT_COLUMNS):
        try:
            start, rate, shape = float(row["window_start_s"]), float(row["rate_rps"]), float(row["p1"])
        except ValueError as error:
            raise TraceError(f"{clients}, line {number}: {error}") from None
        if row["pattern"] not in ("Gamma", "Weibull"):
            raise TraceError(f"{clients}, line {number}: pattern is {row['pattern']!r}; known: Gamma, Weibull")
        if rate > 0 and shape > 0:
            gaps = Gaps(row["client"], rate, row["pattern"] == "Weibull", shape)
            windows.setdefault(int(start // WINDOW_S), []).append(gaps)
    lengths = _read_lengths(tokens)
    donors = sorted(lengths)
    for gaps in (gaps for window in windows.values() for gaps in window):
        if gaps.client not in lengths:
            lengths[gaps.client] = lengths[donors[hash_of(gaps.client) % len(donors)]]
    return ServeGen(windows, lengths, scale, start_s, length_s)


def hash_of(name: str) -> int:
    """The same in every process."""
    return sum(byte * 31**index for index, byte in enumerate(name.encode()))


def _read_lengths(path: Path) -> dict[str, tuple[list[float], list[tuple[Curve, Curve]]]]:
    found: dict[tuple[str, float], dict[str, Curve]] = {}
    for number, row in _rows(path, TOKEN_COLUMNS):
        try:
            inner = [float(row[name]) for name in COLUMNS]
            key = (row["client"], float(row["window_start_s"]))
        except ValueError as error:
            raise TraceError(f"{path}, line {number}: {error}") from None
        found.setdefault(key, {})[row["field"]] = (inner[0] * FLOOR_OF_Q05, *inner, inner[-1] * TOP_OF_Q99)
    lengths: dict[str, tuple[list[float], list[tuple[Curve, Curve]]]] = {}
    for (client, start), curves in sorted(found.items()):
        if "input_tokens" in curves and "output_tokens" in curves:
            starts, pairs = lengths.setdefault(client, ([], []))
            starts.append(start)
            pairs.append((curves["input_tokens"], curves["output_tokens"]))
    if not lengths:
        raise TraceError(f"{path} has no client with input_tokens and output_tokens")
    return lengths


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise TraceError(f"{path}, line 1: no column {', '.join(missing)}; found: {reader.fieldnames}")
            for number, row in enumerate(reader, 2):
                if None in row.values() or None in row:
                    raise TraceError(f"{path}, line {number}: not {len(reader.fieldnames or ())} columns")
                yield number, row
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path} cannot be read: {error}") from error


def _draw(curve: Curve, random: Random) -> int:
    share: float = random.random()
    index = 0
    while share >= SHARES[index + 1]:  # a share is below 1
        index += 1
    low = SHARES[index]
    part = (share - low) / (SHARES[index + 1] - low)
    below = curve[index]
    return max(1, round(below + part * (curve[index + 1] - below)))
