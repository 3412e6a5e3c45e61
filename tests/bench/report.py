"""What every benchmark prints: a table for people, then one line of JSON. Base units; JSON is never rounded."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

MISSED: Final = 3
"""Exit code of a benchmark that ran and missed one of its limits; 1 is a crash."""


@dataclass(frozen=True, slots=True)
class Figure:
    """`key` ends in its unit (_seconds, _bytes, _tokens ...). `at_most` is what the project asks for, if it does."""

    section: str
    key: str
    value: float
    note: str = ""
    at_most: float | None = None


class Report:
    """Collects figures, ratios and what was left out, in the order in which they came."""

    def __init__(self, name: str, machine: dict[str, Any] | None = None) -> None:
        self.name = name
        self._machine = machine if machine is not None else describe_machine()
        self._figures: list[Figure] = []
        self._ratios: list[dict[str, Any]] = []
        self._left_out: list[dict[str, str]] = []
        self._told: dict[str, Any] = {}

    def tell(self, key: str, value: Any) -> None:
        """One more key of the JSON object, beside the figures."""
        self._told[key] = value

    def add(self, section: str, key: str, value: float, note: str = "", at_most: float | None = None) -> None:
        """One figure."""
        self._figures.append(Figure(section, key, value, note, at_most))

    def add_ratio(self, name: str, value: float, limit_fraction: float | None = None) -> None:
        """Larger is better (for times: theirs / ours); `limit_fraction` of a physical limit measured in this run."""
        limit = {} if limit_fraction is None else {"limit_fraction": limit_fraction}
        self._ratios.append({"name": name, "ratio": value, **limit})

    def leave_out(self, what: str, why: str) -> None:
        """Something that this run could not measure, and how it can be had."""
        self._left_out.append({"what": what, "why": why})

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        sections: dict[str, dict[str, float]] = {}
        for figure in self._figures:
            sections.setdefault(figure.section, {})[figure.key] = figure.value
        return {
            "benchmark": self.name,
            "machine": self._machine,
            "figures": sections,
            **({"ratios": self._ratios} if self._ratios else {}),
            "missed": [f"{figure.section}.{figure.key}" for figure in self._figures if _is_missed(figure)],
            "left_out": self._left_out,
            **self._told,
        }

    def finish(self, console: Console | None = None) -> None:
        """Prints the table and, as the last line, the JSON object."""
        console = console or Console(width=None if sys.stdout.isatty() else 120)
        console.print(self._table())
        for entry in self._left_out:
            console.print(f"left out: {entry['what']} ({entry['why']})", style="yellow", markup=False)
        console.file.write(json.dumps(self.as_dict()) + "\n")
        console.file.flush()

    def _table(self) -> Table:
        table = Table(title=f"{self.name} on {' '.join(str(value) for value in self._machine.values())}")
        for heading in ("", "figure", "value", "at most", "note"):
            table.add_column(heading, justify="right" if heading in ("value", "at most") else "left")
        before = ""
        for figure in self._figures:
            value, limit = (
                show(figure.key, figure.value),
                "" if figure.at_most is None else show(figure.key, figure.at_most),
            )
            style = "red" if _is_missed(figure) else None
            table.add_row(
                figure.section if figure.section != before else "", figure.key, value, limit, figure.note, style=style
            )
            before = figure.section
        for ratio in self._ratios:
            limit = f"{ratio['limit_fraction']:.0%} of the limit" if "limit_fraction" in ratio else ""
            table.add_row("ratio", ratio["name"], f"{ratio['ratio']:.2f}x", "", limit)
        return table


def _is_missed(figure: Figure) -> bool:
    return figure.at_most is not None and figure.value > figure.at_most


def show(key: str, value: float) -> str:
    """The value for people, by the unit at the end of its key."""
    if key.endswith("_seconds"):
        return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.2f} s"
    if key.endswith("_bytes"):
        return f"{value / 1e6:.1f} MB"
    return f"{value:,.6g}"


def describe_machine(proc: Path = Path("/proc")) -> dict[str, Any]:
    """Processor, count of usable cores, memory, system, Python."""
    return {
        "processor": _find(proc / "cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int((_find(proc / "meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _find(path: Path, key: str) -> str:
    try:
        lines: Iterable[str] = path.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
