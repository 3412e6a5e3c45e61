"""Cumulative counters of sources that come, go and start anew, kept as one row of totals over time, as rate() would."""

from __future__ import annotations

import math

import msgspec

from tandem_operator.scaling.observation import Observation


class Totals(msgspec.Struct, frozen=True):
    """Since the first observation, over every source."""

    arrivals: float = 0.0
    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0
    completed: float = 0.0
    output_tokens: float = 0.0
    """Of completed requests."""
    prefilled_tokens: float = 0.0
    """Computed by prefill pods."""
    decoded_tokens: float = 0.0
    """Computed by decode pods."""


class Source(msgspec.Struct, frozen=True):
    """What a source told last."""

    incarnation: str
    values: tuple[float, ...]


class Point(msgspec.Struct, frozen=True):
    """Totals at one moment."""

    at: float
    totals: Totals


class History(msgspec.Struct, frozen=True):
    """Points, oldest first, and each source's last values."""

    points: tuple[Point, ...] = ()
    sources: dict[str, Source] = {}

    def rates(self, window_s: float) -> Totals:
        """Increase per second of each counter over the last window; all zero until two points exist."""
        if len(self.points) < 2:
            return Totals()
        last = self.points[-1]
        first = self.points[0]
        for point in reversed(self.points[:-1]):
            first = point
            if last.at - point.at >= window_s - 1e-6:
                break
        seconds = max(last.at - first.at, 1e-9)
        before, after = msgspec.structs.astuple(first.totals), msgspec.structs.astuple(last.totals)
        return Totals(*((b - a) / seconds for a, b in zip(before, after, strict=True)))


def extend(history: History, observation: Observation, now: float, keep_s: float) -> History:
    """One more point; points older than `keep_s` go, except the one that still spans it."""
    grown = [0.0] * 7
    sources: dict[str, Source] = {}
    for name, incarnation, values, offset in _tell(observation):
        if not all(math.isfinite(value) and value >= 0 for value in values):
            continue  # a scraper drops NaN
        before = history.sources.get(name)
        fresh = before is None or before.incarnation != incarnation
        for index, value in enumerate(values):
            known = 0.0 if fresh or before is None else before.values[index]
            grown[offset + index] += value - known if value >= known else value
        sources[name] = Source(incarnation, values)
    totals = msgspec.structs.astuple(history.points[-1].totals) if history.points else (0.0,) * 7
    point = Point(now, Totals(*(a + b for a, b in zip(totals, grown, strict=True))))
    points = history.points
    start = 0
    while start + 1 < len(points) and points[start + 1].at <= now - keep_s:
        start += 1
    return History((*points[start:], point), {**history.sources, **sources} if _missing(history, sources) else sources)


def _missing(history: History, sources: dict[str, Source]) -> bool:
    """Whether a source that spoke before is silent now: its last values are still needed when it speaks again."""
    return any(name not in sources for name in history.sources) and len(history.sources) < 512


def _tell(observation: Observation) -> list[tuple[str, str, tuple[float, ...], int]]:
    """Name, incarnation, counters, and the index in Totals of the first of them."""
    told: list[tuple[str, str, tuple[float, ...], int]] = []
    for router in observation.routers:
        rows = [
            (row.arrivals, row.prompt_tokens, row.cached_tokens, row.completed, row.output_tokens)
            for row in router.classes.values()
        ]
        sums = tuple(float(sum(column)) for column in zip(*rows, strict=True)) if rows else (0.0,) * 5
        told.append((f"router/{router.router}", router.incarnation, sums, 0))
    for pod in observation.pods:
        if pod.signals is not None:
            prefill = pod.role == "prefill"
            counter = float(pod.signals.prompt_tokens if prefill else pod.signals.output_tokens)
            told.append((f"pod/{pod.name}", pod.signals.incarnation, (counter,), 5 if prefill else 6))
    return told
