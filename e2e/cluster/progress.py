"""How far a long build is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

LOG_SECONDS = 30.0  # between two lines of a log; a CI that shows nothing for minutes looks dead
BAR_COLUMNS = 24
SETTLED = 20  # packages before an estimate means anything


def estimate_seconds(done: int, total: int, elapsed_seconds: float) -> float | None:
    """Seconds left at the speed so far; None while too little is done to say."""
    if done < SETTLED or elapsed_seconds <= 0:
        return None
    return max(0, total - done) * elapsed_seconds / done


def render(what: str, done: int, total: int, elapsed_seconds: float) -> str:
    """One line: bar, percent, packages, time left."""
    share = min(done / total, 1.0) if total else 0.0
    full = round(share * BAR_COLUMNS)
    left = estimate_seconds(done, total, elapsed_seconds)
    remaining = "estimating" if left is None else f"about {show_seconds(left)} left"
    last = remaining if done < total else "linking"
    bar = "#" * full + "-" * (BAR_COLUMNS - full)
    return f"{what} [{bar}] {share:4.0%} {done}/{total} packages, {show_seconds(elapsed_seconds)}, {last}"


def show_seconds(seconds: float) -> str:
    """ "45 s" or "7 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


class Progress:
    """Shows `step` calls. Everything goes to standard error."""

    def __init__(
        self, what: str, total: int, clock: Callable[[], float] = time.monotonic, out: TextIO | None = None
    ) -> None:
        self._what, self._total, self._clock = what, total, clock
        self._out = out if out is not None else sys.stderr
        self._start = self._last = clock()
        self._done = 0

    @property
    def elapsed_seconds(self) -> float:
        return self._clock() - self._start

    def step(self) -> None:
        """One more package is done."""
        self._done += 1
        line = render(self._what, self._done, self._total, self.elapsed_seconds)
        if self._out.isatty():
            self._out.write(f"\r\x1b[2K{line}")
            self._out.flush()
        elif self._clock() - self._last >= LOG_SECONDS:
            self._last = self._clock()
            print(line, file=self._out, flush=True)

    def finish(self) -> None:
        """Leave the terminal at the start of an empty line."""
        if self._out.isatty():
            self._out.write("\r\x1b[2K")
            self._out.flush()
