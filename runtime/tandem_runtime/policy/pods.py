"""What the router's choice knows of a pod: a value, and what follows from it for the next request."""

from __future__ import annotations

from math import inf

import msgspec

from tandem_runtime.contracts.coefficients import Coefficients
from tandem_runtime.contracts.pod_protocol import KV_HEADROOM_TOKENS

HEADROOM_TOKENS = KV_HEADROOM_TOKENS
"""The decode pod reserves the prompt and one page more before it takes a request."""


class PodSnapshot(msgspec.Struct, frozen=True):
    """The pod's last report plus what was sent since and is not in it yet."""

    pod: str
    role: str
    revision: str
    incarnation: str
    ready: bool
    draining: bool = False
    running: int = 0
    """Requests in the pod, as far as known."""
    waiting_tokens: int = 0
    """Prompt tokens that wait for this pod to compute them."""
    kv_used_tokens: int = 0
    """Or promised to what runs there."""
    kv_total_tokens: int = 0
    """0 while the pod has not told."""
    slots: int | None = None
    """Credit left: requests it still takes from this router. None: it gives no credits, its state alone decides."""
    kv_credit_tokens: int | None = None
    """Of the free KV, what this router may use; the rest is other routers'. None: all."""
    busy_until: float | None = None
    """When the prompts that it has now will be computed, by the clock of `now`. None: `waiting_tokens` alone says."""
    max_sequences: int = 0
    """0: not known."""
    coefficients: Coefficients | None = None
    """None: what it can do is not known, the one with the least work is the best."""
    step_tokens: int = 0
    """Prompt tokens that one of its steps takes; 0: not known."""
    fenced: bool = False
    """It takes nothing new: somebody is about to end it."""

    def with_busy_until(self, busy_until: float) -> PodSnapshot:
        """The same pod, told apart from what only `waiting_tokens` says of it."""
        return PodSnapshot(
            pod=self.pod,
            role=self.role,
            revision=self.revision,
            incarnation=self.incarnation,
            ready=self.ready,
            draining=self.draining,
            running=self.running,
            waiting_tokens=self.waiting_tokens,
            kv_used_tokens=self.kv_used_tokens,
            kv_total_tokens=self.kv_total_tokens,
            slots=self.slots,
            kv_credit_tokens=self.kv_credit_tokens,
            busy_until=busy_until,
            max_sequences=self.max_sequences,
            coefficients=self.coefficients,
            step_tokens=self.step_tokens,
            fenced=self.fenced,
        )

    def serves(self) -> bool:
        """It takes new work."""
        return self.ready and not self.draining and not self.fenced

    def room_tokens(self) -> float:
        """KV that is free; without limit while the pod has not told."""
        free = self.kv_total_tokens - self.kv_used_tokens if self.kv_total_tokens else inf
        return free if self.kv_credit_tokens is None else min(free, self.kv_credit_tokens)

    def has_slot(self) -> bool:
        """It takes one more request, whatever its size."""
        if self.slots is not None and self.slots <= 0:
            return False
        return not self.max_sequences or self.running < self.max_sequences

    def step_seconds(self, more_sequences: int = 0, more_tokens: int = 0) -> float:
        """Of one decode step with so much more in it; 0 when nobody knows."""
        if self.coefficients is None:
            return 0.0
        return self.coefficients.step_seconds(self.running + more_sequences, self.kv_used_tokens + more_tokens)

    def prompt_seconds(self, tokens: int, cached_tokens: int = 0) -> float:
        """To compute a prompt of which some is cached; 0 when nobody knows."""
        if self.coefficients is None:
            return 0.0
        return self.coefficients.prefill_seconds(tokens - cached_tokens, cached_tokens)

    def link_seconds(self, tokens: int) -> float:
        """To send the KV of so many tokens; 0 when nobody knows."""
        known = self.coefficients
        if known is None or known.link.bytes_per_s <= 0:
            return 0.0
        return known.link.setup_s + tokens * known.kv_bytes_per_token / known.link.bytes_per_s
