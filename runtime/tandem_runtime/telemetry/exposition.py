"""Prometheus text format of figures that are read when scraped: the hot paths keep plain counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """`values`: labels to value. Names of counters end in _total."""

    name: str
    help: str
    kind: str
    values: list[tuple[Mapping[str, str], float]] = field(default_factory=list)
    total: float = 0.0
    """Of a histogram: the sum of all that was counted."""


def gauge(name: str, words: str, value: float, labels: Mapping[str, str] | None = None) -> Metric:
    """A figure that goes up and down."""
    return Metric(name, words, "gauge", [(labels or {}, value)])


def counter(name: str, words: str, value: float, labels: Mapping[str, str] | None = None) -> Metric:
    """A figure that only grows."""
    return Metric(name, words, "counter", [(labels or {}, value)])


def histogram(name: str, words: str, edges: Sequence[float], counts: Sequence[int], total: float) -> Metric:
    """`counts[i]` values lie at or below `edges[i]` and above the edge before; the last count is of all above."""
    limits = [*[f"{edge:.6g}" for edge in edges], "+Inf"]
    buckets = [({"le": limit}, float(below)) for limit, below in zip(limits, accumulate(counts), strict=True)]
    return Metric(name, words, "histogram", list(buckets), total)


def render(metrics: Iterable[Metric]) -> bytes:
    """The text a scrape gets."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        bucket = "_bucket" if metric.kind == "histogram" else ""
        lines += [f"{metric.name}{bucket}{_labels(labels)} {value}" for labels, value in metric.values]
        if bucket:
            lines += [f"{metric.name}_sum {metric.total}", f"{metric.name}_count {metric.values[-1][1]}"]
    return ("\n".join(lines) + "\n").encode()


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    inner = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return "{" + inner + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
