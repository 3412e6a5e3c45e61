"""What one step may take in besides decoding: tokens, sequences, and seconds so that decoding keeps its pace. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from tandem_runtime.engine.estimate import StepEstimate

OBJECTIVE_SHARE: Final = 0.9
"""Of the time per token that was promised; the rest is for what nobody predicts."""


@dataclass(slots=True)
class Allowance:
    """Of one step. `seconds` is infinite while nothing is promised or known; `least_tokens` are granted whatever it
    says, so that prompts are never starved by objectives that cannot be met anyway."""

    tokens: int
    sequences: int
    least_tokens: int
    seconds: float = inf
    estimate: StepEstimate | None = None
    granted: int = 0

    @property
    def open(self) -> bool:
        """Whether another chunk can be granted."""
        return self.sequences > 0 and self._limit(0) > 0

    def grant(self, wanted: int, context: int) -> int:
        """Tokens of a chunk behind `context` tokens; 0 when nothing is left."""
        return min(wanted, self._limit(context)) if self.sequences > 0 else 0

    def spend(self, tokens: int, context: int) -> None:
        """A chunk is planned."""
        self.tokens -= tokens
        self.granted += tokens
        self.sequences -= 1
        if self.estimate is not None and self.seconds < inf:
            seconds = self.estimate.prefill_seconds(tokens, tokens * (context + tokens / 2))
            self.seconds -= seconds * self.estimate.mixed

    def _limit(self, context: int) -> int:
        limit = self.tokens
        if self.estimate is not None and self.seconds < inf:
            timed = self.estimate.tokens_within(self.seconds / self.estimate.mixed, context)
            limit = min(limit, max(timed, self.least_tokens - self.granted))
        return max(0, limit)


def seconds_left(estimate: StepEstimate, sequences: int, kv_tokens: int, tpot_seconds: float) -> float:
    """For prompts, in a step that decodes `sequences` sequences at the pace of the strictest of them; infinite when
    nobody decodes, nothing is promised or too little is known."""
    if not sequences or tpot_seconds == inf or not estimate.known:
        return inf
    return OBJECTIVE_SHARE * tpot_seconds - estimate.mixed * estimate.step_seconds(sequences, kv_tokens)
