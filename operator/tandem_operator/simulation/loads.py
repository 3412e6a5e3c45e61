"""The loads of the scenarios: from the published traces when their folder is there, else made with their statistics."""

from __future__ import annotations

from functools import cache
from math import exp
from pathlib import Path
from random import Random
from typing import Final

from tandem_operator.simulation.arrivals import Bursts, Lines, Sine, Steps
from tandem_operator.simulation.lengths import CHAT, LONG, SHORT, Drawn, Fixed, Shifting
from tandem_operator.simulation.servegen import read_servegen
from tandem_operator.simulation.sessions import Sessions
from tandem_operator.simulation.traced import Traced
from tandem_operator.simulation.traces import Rows, read_trace
from tandem_operator.simulation.workload import Synthetic, Workload

AZURE: Final = "azure2023_conv.csv"
MOONCAKE: Final = "mooncake_fast25_synthetic.jsonl"
AIBRIX: Final = "aibrix_8min_up_and_down.csv"
CLIENTS: Final = "servegen_m-large_clients_days1-7.csv.gz"
TOKENS: Final = "servegen_m-large_tokens_days1-7.csv.gz"
AZURE_SCALE: Final = 30.0
"""166 requests per second: 7 prefill and 5 decode pods."""
MOONCAKE_SCALE: Final = 4.0
AIBRIX_SCALE: Final = 60.0
DAY_SCALE: Final = 0.5
DAY_START_S: Final = 6 * 86400.0
"""The last of the seven days: 109 to 308 requests per second of the whole; days 1 to 3 are for tuning."""
WINDOW_START_S: Final = 8.5 * 3600.0
"""Of the day: the hour and a half of its steepest rise."""
WINDOW_S: Final = 5400.0
DAY_HOURS: Final = (
    172, 154, 134, 132, 126, 109, 134, 138, 129, 169, 217, 271,
    308, 303, 286, 262, 241, 244, 238, 306, 281, 293, 259, 220,
)  # fmt: skip
"""Requests per second of such a day, by hour."""
DAY_LENGTHS: Final = Drawn(
    prompt=(2, 20, 60, 110, 190, 260, 330, 420, 560, 780, 1150, 2100, 3900, 8500, 12000, 13000),
    output=(1, 4, 8, 12, 18, 25, 34, 45, 60, 80, 110, 170, 260, 520, 900, 1000),
)
CHAT_MEAN: Final = 5.53
UP_AND_DOWN: Final = (
    0.8, 3.0, 1.0, 1.8, 1.1, 1.2, 2.0, 1.1, 2.1, 2.2, 2.2, 5.1, 2.2, 3.4, 3.1, 5.4, 8.4, 7.4, 8.9, 5.7, 6.8, 13.9, 9.9,
    10.2, 11.7, 12.8, 7.5, 5.3, 10.4, 4.6, 6.8, 5.0, 3.5, 1.9, 3.1, 3.4, 2.8, 0.9, 3.2, 2.9, 1.7, 1.5, 0.8, 1.3, 1.2,
    1.2,
)  # fmt: skip
"""Requests per second, every ten seconds."""


def five_fold(quick: bool) -> tuple[Workload, tuple[float, ...]]:
    """S1, and when its step comes."""
    up, down, end = (300.0, 900.0, 1500.0) if quick else (600.0, 1500.0, 2700.0)
    return Synthetic(Steps(((0.0, 30.0), (up, 150.0), (down, 30.0))), CHAT, end), (up,)


def sine(quick: bool) -> Workload:
    """S2: long prompts, short answers, at four times the published rate."""
    return Synthetic(Sine(20.0, 80.0, 1200.0), Fixed(3000, 150), 1200.0 if quick else 3600.0)


def conversation(quick: bool, traces: Path | None) -> Workload:
    """S3."""
    length_s = 1500.0 if quick else 3500.0
    rows = _rows(traces, AZURE)
    if rows is not None:
        return Traced(rows, AZURE_SCALE, 0.0, length_s)
    return Synthetic(wander(CHAT_MEAN * AZURE_SCALE, 3500.0), CHAT, length_s)


def bursts(quick: bool) -> Workload:
    """S4."""
    return Synthetic(Bursts(15.0, 10.0, 300.0, 10.0, 60.0), CHAT, 900.0 if quick else 2700.0)


def long_prompts(quick: bool, traces: Path | None) -> Workload:
    """S5."""
    rows = _rows(traces, MOONCAKE)
    length_s = 500.0 if quick else 1022.0
    if rows is not None:
        return Traced(rows, MOONCAKE_SCALE, 0.0, length_s)
    return Sessions(Steps(((0.0, 3.9 * MOONCAKE_SCALE),)), LONG, length_s)


def day(quick: bool, traces: Path | None, full: bool) -> Workload:
    """S6: the window of the day, or all of it."""
    start_s = 0.0 if full else WINDOW_START_S
    length_s = 86400.0 if full else 1800.0 if quick else WINDOW_S
    if traces is not None and (traces / CLIENTS).is_file() and (traces / TOKENS).is_file():
        return read_servegen(traces / CLIENTS, traces / TOKENS, DAY_SCALE, DAY_START_S + start_s, length_s)
    hours = [(hour * 3600.0 - start_s + 1800.0, rate * DAY_SCALE) for hour, rate in enumerate(DAY_HOURS)]
    return Synthetic(Lines(tuple(hours)), DAY_LENGTHS, length_s, cv=1.3)


def shift(quick: bool) -> tuple[Workload, tuple[float, ...]]:
    """S7, and when the lengths change."""
    part = 900.0
    lengths = Shifting(((0.0, Fixed(2000, 200)), (part, Fixed(8000, 50)), (2 * part, Fixed(500, 1500))))
    return Synthetic(Steps(((0.0, 30.0),)), lengths, 3 * part), (part, 2 * part)


def flash(quick: bool) -> tuple[Workload, tuple[float, ...]]:
    """S8: nothing, then all at once, and again."""
    idle, busy = (400.0, 200.0) if quick else (900.0, 300.0)
    starts = tuple(idle + index * (idle + busy) for index in range(2 if quick else 3))
    parts = [(0.0, 0.0)]
    for start in starts:
        parts += [(start, 40.0), (start + busy, 0.0)]
    return Synthetic(Steps(tuple(parts)), CHAT, starts[-1] + busy + 100.0), starts


def up_and_down(quick: bool, traces: Path | None) -> Workload:
    """S9."""
    rows = _rows(traces, AIBRIX)
    scale = AIBRIX_SCALE / 2 if quick else AIBRIX_SCALE
    if rows is not None:
        return Traced(rows, scale)
    parts = tuple((10.0 * index, rate * scale) for index, rate in enumerate(UP_AND_DOWN))
    return Synthetic(Steps(parts), SHORT, 456.0, cv=1.3)


def constant(quick: bool) -> Workload:
    """The same all the time."""
    return Synthetic(Steps(((0.0, 60.0),)), CHAT, 1200.0 if quick else 3600.0)


def wander(mean: float, end_s: float) -> Lines:
    """A rate that moves as that of the Azure conversation trace: by 20 % over minutes, the peak minute 1.5 times."""
    random = Random(f"wander {mean} {end_s}")
    level, parts = 0.0, []
    for index in range(int(end_s / 20.0) + 2):
        level = 0.85 * level + random.gauss(0.0, 0.1)
        parts.append((20.0 * index, mean * exp(level)))
    return Lines(tuple(parts))


@cache
def _read(path: Path) -> Rows:
    return read_trace(path)


def _rows(traces: Path | None, name: str) -> Rows | None:
    return _read(traces / name) if traces is not None and (traces / name).is_file() else None
