"""What is known of the links to other pods: transport, measured speed, last trouble, when it was last heard. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

KEPT_LINKS: Final = 256
"""Links that are gone are forgotten, oldest first, beyond that many."""


@dataclass(slots=True)
class LinkHealth:
    """One peer, at one address. Times on the caller's clock."""

    pod: str
    address: str
    role: str = ""
    connected: bool = False
    transport: str = ""
    """tcp, shm; empty before the first connection."""
    transport_note: str = ""
    """Why not shared memory, if it was wished."""
    bytes_per_second: float = 0.0
    """Best of the last test; 0 while nothing was measured."""
    preflight: str = ""
    """ok, failed; empty before the first test."""
    last_error: str = ""
    last_error_at: float | None = None
    last_seen: float | None = None
    rejects: int = 0

    def fail(self, error: str, now: float) -> None:
        """Something went wrong; stays until something else does."""
        self.last_error, self.last_error_at = error, now

    def as_dict(self, now: float) -> dict[str, Any]:
        """As /signals shows it: ages instead of times."""

        def age(moment: float | None) -> float | None:
            return None if moment is None else round(now - moment, 3)

        return {
            "pod": self.pod,
            "address": self.address,
            "role": self.role,
            "connected": self.connected,
            "type": self.transport,
            "type_note": self.transport_note,
            "gb_per_s": round(self.bytes_per_second / 1e9, 3),
            "preflight": self.preflight,
            "last_error": self.last_error,
            "last_error_age_s": age(self.last_error_at),
            "last_seen_age_s": age(self.last_seen),
            "rejects": self.rejects,
        }


@dataclass(slots=True)
class LinkTable:
    """All links of one side."""

    links: dict[str, LinkHealth] = field(default_factory=dict)

    def at(self, address: str, pod: str = "", role: str = "") -> LinkHealth:
        """The link to that address; made when it is new. A name that is given replaces the one before."""
        link = self.links.pop(address, None) or LinkHealth(pod, address)
        link.pod, link.role = pod or link.pod, role or link.role
        self.links[address] = link
        gone = [key for key, other in self.links.items() if not other.connected]
        for key in gone[: max(0, len(self.links) - KEPT_LINKS)]:
            del self.links[key]
        return link

    @property
    def connected(self) -> list[LinkHealth]:
        """Those that stand."""
        return [link for link in self.links.values() if link.connected]

    def summary(self) -> str:
        """One line for people: what works, and the latest trouble of what does not."""
        working = [
            f"{link.pod or link.address} {link.transport}"
            + (f" {link.bytes_per_second / 1e9:.1f} GB/s" if link.bytes_per_second else "")
            for link in self.connected
        ]
        failing = [
            f"{link.pod or link.address}: {link.last_error}"
            for link in self.links.values()
            if link.last_error and (not link.connected or link.preflight == "failed")
        ]
        return "; ".join([*working[:4], *failing[-2:]]) or "no prefill pod seen yet"
