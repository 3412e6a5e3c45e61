"""When which request is due: decided before anything is sent, so that a slow server cannot slow its clients down."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import exp, log, sqrt
from pathlib import Path
from random import Random
from typing import Any, Final

STAMPS: Final = {"arrived_s": 1.0, "arrival_s": 1.0, "timestamp_s": 1.0, "timestamp_ms": 0.001}
"""Columns of a trace and their seconds; `timestamp` is a date, or a number of milliseconds."""
PROMPTS: Final = ("prompt_tokens", "contexttokens", "input_length", "prompt_len")
OUTPUTS: Final = ("output_tokens", "generatedtokens", "output_length", "output_len")


@dataclass(frozen=True, slots=True)
class Due:
    """One request; `at` is seconds after the start."""

    at: float
    prompt_tokens: int
    output_tokens: int
    request_class: str = ""


@dataclass(frozen=True, slots=True)
class Length:
    """Log-normal with this mean and coefficient of variation; 0: always the mean."""

    mean: float
    cv: float = 0.0

    def draw(self, random: Random) -> int:
        """At least 1."""
        if not self.cv:
            return max(1, round(self.mean))
        variance = log(1 + self.cv**2)
        return max(1, round(exp(random.gauss(log(self.mean) - variance / 2, sqrt(variance)))))


def poisson_or_gamma(rate: float, cv: float, seconds: float, random: Random) -> Iterator[float]:
    """Times from 0 to `seconds`, with gaps of mean 1 / rate; cv 1 is Poisson, more comes in bursts."""
    shape = 1 / cv**2
    at = 0.0
    while True:
        at += random.gammavariate(shape, 1 / (rate * shape))
        if at >= seconds:
            return
        yield at


def synthetic(
    times: Iterator[float], prompt: Length, output: Length, classes: Sequence[tuple[str, float]], random: Random
) -> Iterator[Due]:
    """Requests with drawn lengths; `classes` with their weights, none: no header."""
    names, weights = [name for name, _ in classes] or [""], [weight for _, weight in classes] or [1.0]
    for at in times:
        yield Due(at, prompt.draw(random), output.draw(random), random.choices(names, weights)[0])


def read_trace(path: Path, speed: float = 1.0, seconds: float | None = None) -> list[Due]:
    """CSV with a header or JSON lines. `speed` 2: twice the rate. Raises ValueError naming file and line."""
    rows: list[Due] = []
    first: float | None = None
    with path.open(encoding="utf-8") as file:
        for number, row in _rows(path, file):
            at = _stamp(path, number, row)
            first = at if first is None else first
            due_at = (at - first) / speed
            if seconds is not None and due_at >= seconds:
                break
            lengths = (_count(path, number, row, PROMPTS), _count(path, number, row, OUTPUTS))
            rows.append(Due(due_at, *lengths, request_class=str(row.get("class") or "")))
    if not rows:
        raise ValueError(f"{path} holds no request")
    return sorted(rows, key=lambda due: due.at)


def _rows(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix in (".jsonl", ".ndjson"):
        for number, line in enumerate(file, 1):
            try:
                yield number, {str(name).lower(): value for name, value in json.loads(line).items()}
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{path}, line {number} is not a JSON object: {error}") from error
        return
    for number, row in enumerate(csv.DictReader(file), 2):
        yield number, {str(name).strip().lower(): value for name, value in row.items()}


def _stamp(path: Path, number: int, row: dict[str, Any]) -> float:
    try:
        for name, unit_seconds in STAMPS.items():
            if name in row:
                return float(row[name]) * unit_seconds
        stamp = row["timestamp"]
        if isinstance(stamp, str) and "-" in stamp:
            return datetime.fromisoformat(stamp[:26]).timestamp()
        return float(stamp) / 1000
    except KeyError:
        raise ValueError(f"{path} has no column of times; one of {', '.join(STAMPS)}, timestamp") from None
    except (TypeError, ValueError):
        raise ValueError(f"{path}, line {number}: the time cannot be read") from None


def _count(path: Path, number: int, row: dict[str, Any], names: Sequence[str]) -> int:
    found = next((row[name] for name in names if name in row), None)
    if found is None:
        raise ValueError(f"{path} has none of the columns {', '.join(names)}")
    try:
        return max(1, int(float(found)))
    except (TypeError, ValueError):
        raise ValueError(f"{path}, line {number}: {found!r} is not a number of tokens") from None
