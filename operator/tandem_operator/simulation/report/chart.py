"""A chart as inline SVG: lines or steps over time, or points with names. Colours are told apart by the colour-blind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tandem_operator.simulation.report.scale import Scale, linear, logarithmic, written

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")
"""Okabe and Ito's, in the order in which they differ most."""
WIDTH: Final = 900
HEIGHT: Final = 210
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 30, 34


@dataclass(frozen=True, slots=True)
class Line:
    """One column; None leaves a gap. `steps` holds a value until the next one."""

    name: str
    values: Sequence[float | None]
    steps: bool = False
    dashed: bool = False
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A horizontal line at a value, an objective for instance."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Point:
    """A named point."""

    name: str
    x: float
    y: float
    strong: bool = False


def time_chart(
    title: str,
    unit: str,
    t_s: Sequence[float],
    lines: Sequence[Line],
    marks: Sequence[Mark] = (),
    *,
    log: bool = False,
    low: float | None = 0.0,
    high: float | None = None,
) -> str:
    """Lines over minutes. An SVG element."""
    values = [value for line in lines for value in line.values if value is not None] + [mark.value for mark in marks]
    vertical = (
        logarithmic(values, HEIGHT - BOTTOM, TOP) if log else linear(values, HEIGHT - BOTTOM, TOP, low=low, high=high)
    )
    minutes = [at / 60.0 for at in t_s]
    end = max(minutes[-1], 1e-6) if minutes else 1.0
    across = Scale(0.0, end, LEFT, WIDTH - RIGHT)
    parts = [_axes(across, vertical, "minutes", HEIGHT)]
    for mark in marks:
        y = vertical(mark.value)
        above = y - 4 if y > TOP + 14 else y + 12
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="mark"/>'
            f'<text x="{WIDTH - RIGHT - 4}" y="{above:.1f}" class="note" text-anchor="end">{escape(mark.name)}</text>'
        )
    for index, line in enumerate(lines):
        colour = line.colour or COLOURS[index % len(COLOURS)]
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        path = _path(line, minutes, across, vertical)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
    parts.append(_head(title, unit, lines))
    return _svg(HEIGHT, title, parts)


def point_chart(
    title: str, x_name: str, y_name: str, points: Sequence[Point], front: Sequence[Point] = (), highest: float = 1.0
) -> str:
    """Named points, those of `front` joined by a line. An SVG element."""
    height = 2 * HEIGHT
    across = linear([point.x for point in points], LEFT, WIDTH - RIGHT - 150)
    vertical = linear([point.y for point in points] + [0.9 * highest], height - BOTTOM, TOP, low=None, high=highest)
    parts = [_axes(across, vertical, x_name, height)]
    if front:
        ordered = sorted(front, key=lambda point: point.x)
        path = " L".join(f"{across(point.x):.1f} {vertical(point.y):.1f}" for point in ordered)
        parts.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[2]}" stroke-dasharray="5 4"/>')
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda one: (not one.strong, one.x)):
        x, y = across(point.x), vertical(point.y)
        at = y + 4
        while any(abs(at - other) < 11 and abs(x - there) < 150 for there, other in taken):
            at += 11
        taken.append((x, at))
        colour = COLOURS[1] if point.strong else COLOURS[0]
        weight = ' font-weight="bold"' if point.strong else ""
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if point.strong else 4}" fill="{colour}"/>'
            f'<text x="{x + 8:.1f}" y="{at:.1f}" class="note"{weight}>{escape(point.name)}</text>'
        )
    parts.append(_head(title, y_name, ()))
    return _svg(height, title, parts)


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def _axes(across: Scale, vertical: Scale, x_name: str, height: int) -> str:
    parts = []
    right = across.end
    for value in vertical.ticks(4):
        y = vertical(value)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{written(value)}</text>')
    for value in across.ticks(9):
        x = across(value)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{height - BOTTOM}" y2="{height - BOTTOM + 4}" class="axis"/>'
        )
        parts.append(f'<text x="{x:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{written(value)}</text>')
    parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{height - BOTTOM}" y2="{height - BOTTOM}" class="axis"/>')
    parts.append(f'<text x="{right}" y="{height - 4}" text-anchor="end" class="note">{escape(x_name)}</text>')
    return "".join(parts)


def _head(title: str, unit: str, lines: Sequence[Line]) -> str:
    """Title, unit, and a legend from the right."""
    parts = [f'<text x="{LEFT}" y="16" class="title">{escape(title)} <tspan class="note">{escape(unit)}</tspan></text>']
    x = float(WIDTH - RIGHT)
    for index in reversed(range(len(lines))):
        line = lines[index]
        x -= 6.2 * len(line.name) + 28
        colour = line.colour or COLOURS[index % len(COLOURS)]
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<line x1="{x:.0f}" x2="{x + 16:.0f}" y1="12" y2="12" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{x + 20:.0f}" y="16">{escape(line.name)}</text>')
    return "".join(parts)


def _path(line: Line, minutes: Sequence[float], across: Scale, vertical: Scale) -> str:
    """SVG path data; pen up over gaps."""
    parts: list[str] = []
    before: float | None = None
    for at, value in zip(minutes, line.values, strict=True):
        if value is None:
            before = None
            continue
        x, y = across(at), vertical(value)
        if before is None:
            parts.append(f"M{x:.1f} {y:.1f}")
        elif line.steps and y != before:
            parts.append(f"H{x:.1f}V{y:.1f}")
        else:
            parts.append(f"L{x:.1f} {y:.1f}")
        before = y
    return "".join(parts)
