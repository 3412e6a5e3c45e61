"""Life of a pod: asked for, scheduled, starting, ready, draining, gone; and what it cost."""

from __future__ import annotations

from collections import deque
from typing import Literal

from tandem_operator.scaling.observation import Iteration
from tandem_operator.simulation.events import Events

RECENT_ITERATIONS = 24
"""As many as an engine keeps for its scraper."""


class Pod:
    """What prefill and decode pods share. Times are -1 until they come."""

    role: Literal["prefill", "decode"]

    def __init__(self, name: str, events: Events, gpus: int) -> None:
        self.name = name
        self.events = events
        self.gpus = gpus
        self.created_s = events.now
        self.scheduled_s = -1.0
        self.ready_s = -1.0
        self.draining_s = -1.0
        self.gone_s = -1.0
        self.served = False
        self.flipped = False
        """It had the other role before."""
        self.incarnations = 0
        """Times that its counters were set back; a scraper sees a new incarnation."""
        self.prompt_tokens = 0
        """Computed here."""
        self.output_tokens = 0
        self.kv_bytes = 0
        self.preemptions = 0
        self.iterations: deque[Iteration] = deque(maxlen=RECENT_ITERATIONS)
        self.iterations_total = 0

    @property
    def takes_work(self) -> bool:
        """Ready, and not on its way out."""
        return self.ready_s >= 0 and self.draining_s < 0

    @property
    def idle(self) -> bool:
        """Nothing in it."""
        raise AssertionError(f"{self.name} has no role")
