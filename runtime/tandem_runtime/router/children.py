"""Child processes that end with their parent, are started again when they die, and whose last words are kept."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from tandem_runtime.contracts.names import EXIT_BAD_CONFIG, EXIT_BAD_MODEL

LAST_LINES: Final = 20
"""Kept of each child, to show when it dies."""
PR_SET_PDEATHSIG: Final = 1
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 10.0
"""Before a child that keeps dying is started again; one that lived for longer than this begins at the first pause."""
HOPELESS: Final = frozenset({EXIT_BAD_CONFIG, EXIT_BAD_MODEL})
"""Exit codes of what would end the same way again."""


class Child:
    """One `tandem-runtime ROLE ...`."""

    def __init__(self, name: str, arguments: Sequence[str], *, verbose: bool = False) -> None:
        self.name = name
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._arguments = arguments
        self._verbose = verbose
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """In a session of its own: Ctrl-C reaches the parent alone, which ends all in order."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tandem_runtime",
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=make_die_with_parent(),
        )
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def wait(self) -> int:
        """Its exit code, once all that it said was read; 128 + n for signal n."""
        assert self._process is not None
        assert self._reading is not None
        await asyncio.shield(self._reading)  # several may wait, and one of them may be cancelled
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    @property
    def started(self) -> bool:
        """There is, or was, a process."""
        return self._process is not None

    def signal(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # a line beyond the reader's limit, which it has dropped
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self.last_lines.append(text)
            if self._verbose:
                print(f"[{self.name}] {text}", flush=True)


def make_die_with_parent() -> Callable[[], None] | None:
    """For preexec_fn: the kernel kills the child when this process ends, however it ends."""
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork: not much is safe after it

    def die_with_parent() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return die_with_parent


async def keep(child: Child, stood: Callable[[], bool], tell: Callable[[Child, int, float], None]) -> int:
    """Starts a child again whenever it ends, as a kubelet would. Returns the exit code of one that has no hope.

    `stood`: whether all stood once; what ends before that is wrong from the start. `tell` gets the child, its exit
    code and the seconds until the next start.
    """
    pause_seconds = FIRST_PAUSE_SECONDS
    while True:
        began = time.monotonic()
        code = await child.wait()
        if not stood() or code in HOPELESS:
            return code or 1
        if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
            pause_seconds = FIRST_PAUSE_SECONDS
        tell(child, code, pause_seconds)
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        await child.start()


async def stop_all(children: Sequence[Child], grace_seconds: float) -> None:
    """SIGTERM to all at once, SIGKILL to those that are left after the grace."""
    for child in children:
        child.signal(signal.SIGTERM)
    endings = [asyncio.ensure_future(child.wait()) for child in children if child.started]
    if not endings:
        return
    _, left = await asyncio.wait(endings, timeout=grace_seconds)
    if left:
        for child in children:
            child.signal(signal.SIGKILL)
        await asyncio.wait(left)
