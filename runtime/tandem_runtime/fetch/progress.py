"""How far a fetch is: a line every few seconds for logs, a bar on a terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from tandem_runtime.fetch.store import format_bytes

LINE_SECONDS: Final = 5.0
"""Between two lines: a log of an hour's fetch stays readable."""
BAR_SECONDS: Final = 0.2


class Tally:
    """Bytes there and bytes wanted, per file. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wanted: dict[str, int] = {}
        self._there: dict[str, int] = {}
        self._started = clock()
        self._there_at_start: dict[str, int] = {}

    def expect(self, name: str, size_bytes: int | None, there_bytes: int) -> None:
        """A file to bring, of which `there_bytes` were there before."""
        self._wanted[name] = size_bytes or 0
        self._there[name] = self._there_at_start[name] = there_bytes

    def report(self, name: str, there_bytes: int) -> None:
        """Bytes of the file that are there now."""
        self._there[name] = there_bytes

    @property
    def there_bytes(self) -> int:
        """Of all files."""
        return sum(self._there.values())

    @property
    def wanted_bytes(self) -> int:
        """Of all files whose size is known, at least what is there."""
        return sum([max(wanted, self._there[name]) for name, wanted in self._wanted.items()])

    @property
    def received_bytes(self) -> int:
        """By this process, what it threw away not counted."""
        return max(0, self.there_bytes - sum(self._there_at_start.values()))

    def line(self) -> str:
        """ "1.2 GiB of 14.9 GiB (8 %), 210.0 MiB/s, 67 s left"."""
        rate = self.received_bytes / max(1e-3, self._clock() - self._started)
        left = self.wanted_bytes - self.there_bytes
        share = 100 * self.there_bytes // max(1, self.wanted_bytes)
        text = f"{format_bytes(self.there_bytes)} of {format_bytes(self.wanted_bytes)} ({share} %)"
        return f"{text}, {format_bytes(rate)}/s" + (f", {left / rate:.0f} s left" if rate > 0 and left > 0 else "")


@asynccontextmanager
async def show_progress(tally: Tally, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Shows the tally while the block runs."""
    task = asyncio.create_task(_draw_bar(tally) if sys.stderr.isatty() else _write_lines(tally, say))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _write_lines(tally: Tally, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(LINE_SECONDS)
        say(tally.line())


async def _draw_bar(tally: Tally) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        while True:
            bar.update(task, total=tally.wanted_bytes or None, completed=tally.there_bytes)
            await asyncio.sleep(BAR_SECONDS)
