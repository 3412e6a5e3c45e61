"""Reads request traces of every published layout; which one a file has is seen from its columns.

Azure, AIBrix, BurstGPT and alike (CSV), Mooncake and Qwen-Bailian (JSON lines with hash_ids). ServeGen: servegen.py.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

MILLISECONDS: Final = ("timestamp_ms", "arrival_ms", "time_ms")
SECONDS: Final = ("arrived_s", "arrival_s", "arrival_time", "arrived_at", "timestamp_s")
STAMPS: Final = ("timestamp", "time")
"""A date, or a number: of milliseconds in Mooncake's layout, of seconds else."""
PROMPTS: Final = (
    "prompt_tokens", "contexttokens", "input_length", "prompt_len", "prompt_length", "input_tokens", "input_toks",
    "request tokens", "num_prefill_tokens", "isl",
)  # fmt: skip
OUTPUTS: Final = (
    "output_tokens", "generatedtokens", "output_length", "output_len", "output_toks", "response tokens",
    "num_decode_tokens", "osl",
)  # fmt: skip
MOONCAKE_BLOCK_TOKENS: Final = 512
BAILIAN_BLOCK_TOKENS: Final = 16
QUANTISED: Final = 0.5
"""Share of requests that have the stamp of the one before from which on stamps are taken for rounded."""


class Row(NamedTuple):
    """One request of a trace."""

    t_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


class Rows(NamedTuple):
    """A whole trace from time 0, in order. `block_tokens` 0: it knows no prefixes."""

    rows: list[Row]
    block_tokens: int


class TraceError(ValueError):
    """The message names the file, the line, what is wrong and what would be right."""


def read_trace(path: Path) -> Rows:
    """Raises TraceError."""
    try:
        with open_trace(path) as file:
            first = file.readline()
            file.seek(0)
            if not first.strip():
                raise TraceError(f"{path} is empty: a trace has a header line, or one JSON object per line")
            found = _read_json(path, file) if first.lstrip().startswith("{") else _read_csv(path, file)
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path} cannot be read: {error}") from error
    if not found.rows:
        raise TraceError(f"{path} has no requests")
    found.rows.sort(key=lambda row: row.t_s)
    start = found.rows[0].t_s
    rows = [row._replace(t_s=row.t_s - start) for row in found.rows]
    return Rows(spread_stamps(rows), found.block_tokens)


def spread_stamps(rows: list[Row]) -> list[Row]:
    """Stamps that were rounded to whole seconds or more: what shares one is spread evenly up to the next.

    Traces whose stamps are finer are returned as they are.
    """
    same = sum(a.t_s == b.t_s for a, b in pairwise(rows))
    steps = sorted({row.t_s for row in rows})
    if len(steps) < 3 or same < QUANTISED * len(rows):
        return rows
    quantum = min(b - a for a, b in pairwise(steps))
    if quantum < 1.0:
        return rows
    spread: list[Row] = []
    start = 0
    for index in range(1, len(rows) + 1):
        if index == len(rows) or rows[index].t_s != rows[start].t_s:
            group = rows[start:index]
            spread += [row._replace(t_s=row.t_s + quantum * i / len(group)) for i, row in enumerate(group)]
            start = index
    return spread


def open_trace(path: Path) -> TextIO:
    """Text, unpacked if need be."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read_json(path: Path, lines: Iterable[str]) -> Rows:
    rows: list[Row] = []
    block_tokens = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise TraceError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise TraceError(
                f"{path}, line {number}: an object with timestamp and lengths is needed, not {line[:40]!r}"
            )
        fields = {str(key).lower(): item for key, item in value.items()}
        blocks = fields.get("hash_ids") or ()
        if not isinstance(blocks, list | tuple) or not all(isinstance(block, int) for block in blocks):
            raise TraceError(f"{path}, line {number}: hash_ids is a list of whole numbers")
        is_bailian = "chat_id" in fields or "parent_chat_id" in fields
        row = _row(path, number, fields, plain_stamp=1.0 if is_bailian else 1e-3)
        if blocks:
            block_tokens = BAILIAN_BLOCK_TOKENS if is_bailian else MOONCAKE_BLOCK_TOKENS
        rows.append(row._replace(blocks=tuple(blocks)))
    return Rows(rows, block_tokens)


def _read_csv(path: Path, lines: Iterable[str]) -> Rows:
    reader = csv.reader(lines)
    header = [name.strip().lower() for name in next(reader)]
    for wanted, what in ((PROMPTS, "prompt tokens"), (OUTPUTS, "output tokens"), (_times(), "arrival time")):
        if not any(name in header for name in wanted):
            known = ", ".join(wanted)
            raise TraceError(f"{path}, line 1: no column for the {what}; it may be called {known}; found: {header}")
    return Rows(list(_csv_rows(path, header, reader)), 0)


def _csv_rows(path: Path, header: list[str], reader: Iterator[list[str]]) -> Iterator[Row]:
    for number, values in enumerate(reader, 2):
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            raise TraceError(f"{path}, line {number}: {len(values)} columns, the header has {len(header)}")
        yield _row(path, number, dict(zip(header, values, strict=True)), plain_stamp=1.0)


def _row(path: Path, number: int, fields: dict[str, Any], plain_stamp: float) -> Row:
    prompt = _count(path, number, fields, PROMPTS)
    output = _count(path, number, fields, OUTPUTS)
    return Row(_time(path, number, fields, plain_stamp), max(1, prompt), max(1, output))


def _count(path: Path, number: int, fields: dict[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        if name in fields:
            value = _number(path, number, name, fields[name])
            if value < 0 or value != int(value):
                raise TraceError(f"{path}, line {number}: {name} is {fields[name]!r}, a whole number is needed")
            return int(value)
    raise TraceError(f"{path}, line {number}: none of {', '.join(names)}")


def _time(path: Path, number: int, fields: dict[str, Any], plain_stamp: float) -> float:
    for names, unit in ((MILLISECONDS, 1e-3), (SECONDS, 1.0)):
        for name in names:
            if name in fields:
                return _number(path, number, name, fields[name]) * unit
    for name in STAMPS:
        if name in fields:
            value = fields[name]
            if isinstance(value, str) and not _is_number(value):
                return _date(path, number, name, value)
            return _number(path, number, name, value) * plain_stamp
    raise TraceError(f"{path}, line {number}: none of {', '.join(_times())}")


def _times() -> tuple[str, ...]:
    return (*STAMPS, *SECONDS, *MILLISECONDS)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(path: Path, number: int, name: str, value: object) -> float:
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TraceError(f"{path}, line {number}: {name} is {value!r}, a number is needed") from None
    if found != found or found in (float("inf"), float("-inf")):
        raise TraceError(f"{path}, line {number}: {name} is {value!r}, a finite number is needed")
    return found


def _date(path: Path, number: int, name: str, text: str) -> float:
    """Azure writes seven digits of a second; Python reads six."""
    head, dot, rest = text.strip().partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :] if dot else ""
    try:
        whole = datetime.fromisoformat(f"{head}{zone}")
    except ValueError:
        raise TraceError(f"{path}, line {number}: {name} is {text!r}, neither a number nor a date") from None
    return whole.timestamp() + (float(f"0.{digits}") if digits else 0.0)
