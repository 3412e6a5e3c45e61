"""What one step may take in besides decoding: tokens, sequences, and seconds so that decoding keeps its pace. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from tandem_runtime.engine.estimate import StepEstimate

OBJECTIVE_SHARE: Final = 0.9
"""Of the time per token that was promised; the rest is for what nobody predicts."""
SAVED_STEPS: Final = 16
"""Time per token is a mean, and most answers are longer than that: what so many steps save may go into one prompt."""
EFFICIENT: Final = 6.0
"""Times the constant cost of a chunk: smaller ones waste what was saved."""
PATIENT_STEPS: Final = 8
"""After so many steps without one a prompt gets a chunk, whatever was promised to those that decode."""


@dataclass(slots=True)
class Allowance:
    """Of one step. `seconds` is infinite while nothing is promised or known. `least_tokens` are granted whatever the
    seconds say."""

    tokens: int
    sequences: int
    least_tokens: int = 0
    seconds: float = inf
    estimate: StepEstimate | None = None
    granted: int = 0

    @property
    def open(self) -> bool:
        """Whether another chunk can be granted."""
        return self.grant(1, 0) > 0

    def grant(self, wanted: int, context: int) -> int:
        """Tokens of a chunk behind `context` tokens: all, or enough to be worth a chunk; else 0."""
        if self.sequences < 1 or self.tokens < 1:
            return 0
        limit = min(wanted, self.tokens)
        if self.estimate is None or self.seconds == inf:
            return limit
        timed = self.estimate.tokens_within(self.seconds, context)
        if timed < min(limit, self.estimate.efficient_tokens(EFFICIENT)):
            timed = max(0, self.least_tokens - self.granted)
        return min(limit, timed)

    def spend(self, tokens: int, context: int) -> None:
        """A chunk is planned."""
        self.tokens -= tokens
        self.granted += tokens
        self.sequences -= 1
        if self.estimate is not None and self.seconds < inf:
            self.seconds -= self.estimate.prefill_seconds(tokens, tokens * (context + tokens / 2))


class PaceKeeper:
    """Saves what steps take less than was promised to those that decode, and lets prompts have it."""

    def __init__(self, estimate: StepEstimate) -> None:
        self._estimate = estimate
        self._saved = inf
        self._waited = 0

    def allow(self, tokens: int, sequences: int, least_tokens: int, step_seconds: float, pace: float) -> Allowance:
        """Of a step whose decoding takes `step_seconds`; `pace`: seconds per token promised to the strictest."""
        if pace == inf or not self._estimate.known:
            self._saved = inf
            return Allowance(tokens, sequences)
        spare = max(0.0, OBJECTIVE_SHARE * pace - step_seconds)
        self._saved = min(self._saved + spare, SAVED_STEPS * spare)
        least = least_tokens if self._waited >= PATIENT_STEPS else 0
        return Allowance(tokens, sequences, least, self._saved, self._estimate)

    def settle(self, allowance: Allowance, prompts_wait: bool) -> None:
        """The step is planned."""
        self._saved = allowance.seconds
        self._waited = self._waited + 1 if prompts_wait and not allowance.granted else 0
