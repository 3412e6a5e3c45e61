"""A client that streams short completions one after another in the background and keeps what happened."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from e2e.stack import stream_chat


@dataclass
class Load:
    """Used as a context manager; `done` and `errors` grow while it runs."""

    base_url: str
    model: str
    max_tokens: int = 24
    done: list[float] = field(default_factory=list)
    """Monotonic times at which streams began that ended well."""
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            began = time.monotonic()
            try:
                text = "".join(stream_chat(self.base_url, self.model, f"request {count}", self.max_tokens, timeout=60))
                if text:
                    self.done.append(began)
                else:
                    self.errors.append("an empty answer")
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                self._stop.wait(0.2)

    def succeeds_again(self, streams: int = 3) -> Callable[[], bool]:
        """A probe: whether `streams` streams that began after this call ended well."""
        moment = time.monotonic()
        return lambda: sum(1 for began in self.done if began > moment) >= streams

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(90)
