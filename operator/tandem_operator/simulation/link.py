"""The KV link: every pod has one way out or in, and transfers go over it one after another at the full rate.

That moves the same bytes in the same time as sharing it, and costs no event per change of share.
"""

from __future__ import annotations

from tandem_runtime.contracts.coefficients import Link


class Port:
    """One end: free from some time on."""

    __slots__ = ("free_s",)

    def __init__(self) -> None:
        self.free_s = 0.0


def send(link: Link, source: Port, target: Port, size_bytes: int, now: float) -> float:
    """Both ends are taken until the bytes are over; returns when they are usable at the target."""
    start = max(now, max(source.free_s, target.free_s))
    end = start + size_bytes / link.bytes_per_s
    source.free_s = end
    target.free_s = end
    return end + link.setup_s
