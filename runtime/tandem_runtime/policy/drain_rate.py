"""How fast a backlog goes: tokens sent to pods per second of waiting, the recent past counting most."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Final

MEMORY_SECONDS: Final = 20.0
"""Past that old a service counts a third: long enough for a rate, short enough to see new pods."""
MIN_SECONDS: Final = 1.0
MIN_REQUESTS: Final = 5.0
"""Seen in the recent past, before there is a rate at all."""


@dataclass(slots=True)
class DrainRate:
    """Time counts only while something waits: an idle hour says nothing of capacity."""

    _tokens: float = 0.0
    _requests: float = 0.0
    _seconds: float = 0.0
    _since: float = 0.0
    _began: float = 0.0

    def begin(self, now: float) -> None:
        """From now on something waits, and there are pods for it."""
        self._since = self._began = now

    def count(self, tokens: int, now: float) -> None:
        """So many were sent off; something waited up to now. What did not have to wait says nothing of capacity."""
        if now > self._began:
            self._pass(now)
            self._tokens += tokens
            self._requests += 1

    def tokens_per_second(self, now: float) -> float | None:
        """None while too little was seen."""
        seconds = self._seconds + max(0.0, now - self._since)
        return self._tokens / seconds if seconds >= MIN_SECONDS and self._requests >= MIN_REQUESTS else None

    def seconds_for(self, tokens: int, now: float) -> float | None:
        """To send off so many; None when nobody knows."""
        rate = self.tokens_per_second(now)
        return tokens / rate if rate else None

    def _pass(self, now: float) -> None:
        seconds = max(0.0, now - self._since)
        keep = exp(-seconds / MEMORY_SECONDS)
        self._tokens *= keep
        self._requests *= keep
        self._seconds = self._seconds * keep + seconds
        self._since = now
