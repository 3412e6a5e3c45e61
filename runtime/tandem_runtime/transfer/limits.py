"""How long each state of a hand-off may last, on both sides, and how much may be under way. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HandoffLimits:
    """Seconds of the caller's clock. No state of either side is without one of these."""

    ready_seconds: float = 3.0
    """D: PREFILL without READY. A pod answers at once or is in trouble."""
    first_page_seconds: float = 20.0
    """D: READY without a page. The prompts before this one may have to be computed first."""
    progress_seconds: float = 10.0
    """D: a page without the next one or COMMIT; NACK without the page."""
    lease_seconds: float = 10.0
    """P: how long it works and holds pages for a D that says nothing; every message of D renews it."""
    stuck_seconds: float = 10.0
    """P: computed pages that D does not grant room for or does not read, COMMIT without ACK. Not renewed by pings:
    a peer that is alive and does not go on must not hold memory either."""
    window_bytes: int = 16 << 20
    """D: granted and not yet received, per request. Several frames, so that the link never waits for a GRANT."""

    def window_pages(self, page_bytes: int) -> int:
        """At least two: one on the way while the other is taken."""
        return max(2, self.window_bytes // max(1, page_bytes))


DEFAULT_LIMITS = HandoffLimits()
