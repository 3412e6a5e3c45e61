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
    sums: list[tuple[Mapping[str, str], float, int]] = field(default_factory=list)
    """Of a histogram, by labels: the sum of all that was counted, and how many there were."""


def gauge(name: str, words: str, value: float, labels: Mapping[str, str] | None = None) -> Metric:
    """A figure that goes up and down."""
    return Metric(name, words, "gauge", [(labels or {}, value)])


def counter(name: str, words: str, value: float, labels: Mapping[str, str] | None = None) -> Metric:
    """A figure that only grows."""
    return Metric(name, words, "counter", [(labels or {}, value)])


def histogram(name: str, words: str, edges: Sequence[float], counts: Sequence[int], total: float) -> Metric:
    """`counts[i]` values lie at or below `edges[i]` and above the edge before; the last count is of all above."""
    return histograms(name, words, edges, [({}, counts, total)])


def histograms(
    name: str, words: str, edges: Sequence[float], series: Iterable[tuple[Mapping[str, str], Sequence[int], float]]
) -> Metric:
    """Several of one name, told apart by their labels: each with its counts and its sum."""
    limits = [*[f"{edge:.6g}" for edge in edges], "+Inf"]
    metric = Metric(name, words, "histogram")
    for labels, counts, total in series:
        metric.values.extend(
            ({**labels, "le": limit}, float(below)) for limit, below in zip(limits, accumulate(counts), strict=True)
        )
        metric.sums.append((labels, total, sum(counts)))
    return metric


def render(metrics: Iterable[Metric]) -> bytes:
    """The text a scrape gets."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        bucket = "_bucket" if metric.kind == "histogram" else ""
        lines += [f"{metric.name}{bucket}{_labels(labels)} {value}" for labels, value in metric.values]
        for labels, total, count in metric.sums:
            lines += [f"{metric.name}_sum{_labels(labels)} {total}", f"{metric.name}_count{_labels(labels)} {count}"]
    return ("\n".join(lines) + "\n").encode()


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    inner = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return "{" + inner + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
