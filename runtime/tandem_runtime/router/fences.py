"""Pods that get no new requests because somebody is about to end them. A fence is of one incarnation: it outlives
broken connections, and goes when the pod's process is another one. Pure: `now` is passed in.
"""

from __future__ import annotations

from typing import Final

FORGET_SECONDS: Final = 600.0
"""After which a fenced pod that nobody has seen since is gone for good."""
MAX_FENCES: Final = 10_000
"""Far more than there are pods; bounds what wrong orders can do."""


class FenceRefused(ValueError):
    """The message says why; `gone`: the pod is there, but it is another incarnation."""

    def __init__(self, message: str, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


class Fences:
    """By incarnation."""

    def __init__(self) -> None:
        self._fenced: dict[str, tuple[str, float]] = {}
        """Name of the pod, and when it was last seen."""

    def __contains__(self, incarnation: str) -> bool:
        return incarnation in self._fenced

    def __len__(self) -> int:
        return len(self._fenced)

    def put(self, pod: str, incarnation: str, now: float) -> None:
        """Idempotent. Raises FenceRefused when there are too many."""
        if incarnation not in self._fenced and len(self._fenced) >= MAX_FENCES:
            raise FenceRefused(f"{MAX_FENCES} fences stand already; unfence some")
        self._fenced[incarnation] = (pod, now)

    def remove(self, incarnation: str) -> None:
        """Idempotent."""
        self._fenced.pop(incarnation, None)

    def seen(self, pod: str, incarnation: str, now: float) -> None:
        """A pod is connected: fences of its earlier incarnations have gone with them."""
        if not self._fenced:
            return
        for known, (name, _) in list(self._fenced.items()):
            if name == pod and known != incarnation:
                del self._fenced[known]
        if incarnation in self._fenced:
            self._fenced[incarnation] = (pod, now)

    def forget(self, now: float) -> None:
        """Those of pods that have not been seen for long."""
        for incarnation, (_, seen) in list(self._fenced.items()):
            if now - seen > FORGET_SECONDS:
                del self._fenced[incarnation]
