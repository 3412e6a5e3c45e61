"""Time on an emulated link: the payload is scaled down, the link is busy for as long as the real bytes would take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class LinkPace:
    """One link that all transfers of a pod share. Times in seconds of the caller's clock."""

    setup_seconds: float
    bytes_per_second: float
    real_bytes_per_byte: float
    """How many bytes of the real model one byte on the wire stands for."""
    _free_at: float = 0.0

    def occupy(self, now: float, payload_bytes: int, starts: bool) -> float:
        """Seconds from now until the payload is through; `starts`: it is the first of its transfer."""
        busy = payload_bytes * self.real_bytes_per_byte / self.bytes_per_second
        self._free_at = max(now, self._free_at) + busy
        return self._free_at - now + (self.setup_seconds if starts else 0.0)
