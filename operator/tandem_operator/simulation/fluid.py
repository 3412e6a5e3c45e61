"""The fluid bound: device-seconds below which no fleet, however clever, completes a load."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tandem_runtime.contracts.coefficients import Coefficients


@dataclass(frozen=True, slots=True)
class Work:
    """One request as the pools feel it."""

    computed_tokens: int
    context_tokens: int
    """Of the prompt, cached part included."""
    output_tokens: int


def prefill_seconds(coefficients: Coefficients, work: Work, step_tokens: int, convertible: bool) -> float:
    """Its own tokens and its share of a full step's fixed cost, which a step of a decode pod does not have."""
    theta = coefficients.prefill
    cached = work.context_tokens - work.computed_tokens
    attended = work.computed_tokens * (cached + work.computed_tokens / 2)
    fixed = 0.0 if convertible else theta.theta0_s * work.computed_tokens / step_tokens
    return fixed + theta.theta1_s * work.computed_tokens + theta.theta2_s * attended


def decode_seconds(coefficients: Coefficients, works: Iterable[Work]) -> float:
    """Of all together. A step's fixed cost is shared by no more sequences, and no more KV, than a pod holds."""
    phi = coefficients.decode
    own, steps, held = 0.0, 0, 0.0
    for work in works:
        count = work.output_tokens - 1
        kv = count * (work.context_tokens + (count - 1) / 2)
        own += phi.phi1_s * count + phi.phi2_s * kv
        steps += count
        held += kv
    return own + phi.phi0_s * max(steps / coefficients.max_sequences, held / coefficients.kv_tokens)


def best_batch(coefficients: Coefficients, context_tokens: float, tpot_s: float) -> int:
    """Most sequences of that much KV each whose step takes no longer than `tpot_s`; at least 1."""
    phi = coefficients.decode
    per_sequence_s = phi.phi1_s + phi.phi2_s * context_tokens
    by_time = (tpot_s - phi.phi0_s) / per_sequence_s if per_sequence_s > 0 else coefficients.max_sequences
    by_room = coefficients.kv_tokens / max(1.0, context_tokens)
    return max(1, int(min(by_time, by_room, coefficients.max_sequences)))
