"""What the scaling law answers: targets, the next state, and why; and the record from which it can be run again."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import msgspec

from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.settings import Settings

RECORD_SCHEMA: Final = 1
Bottleneck = Literal["Prefill", "Decode", "KVLink", "Queue", "None"]


class Targets(msgspec.Struct, frozen=True):
    """Replicas that each pool should have now."""

    prefill: int
    decode: int


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """A pair that was looked at: what it would attain, what it costs, why not."""

    prefill: int
    decode: int
    attainment: float
    gpus: int
    why: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """For people and for status.autoscaling. `summary` is one sentence with the arithmetic of what binds."""

    summary: str
    bottleneck: Bottleneck = "None"
    binding: str = ""
    """What fixes the size, with its numbers: "prefill tail: P(W>1.4 s)=0.031 > 0.01 at P=6, 0.004 at P=7"."""
    would_change: str = ""
    """What would have to happen for another answer."""
    suppressed_by: tuple[str, ...] = ()
    """Holds, budget, bounds, stale signals: why the target is not what the load alone would ask for."""
    wanted: Targets | None = None
    """What load alone would ask for."""
    ratio: float = 0.0
    """Prefill replicas per decode replica that the load mix asks for."""
    attainment_predicted: float = 1.0
    alternatives: tuple[Alternative, ...] = ()
    facts: dict[str, float] = {}
    """Inputs of the arithmetic by name with unit: arrivals_per_s, queue_tokens, lead_s, theta1_s ..."""


class Decision(NamedTuple):
    """What `decide` returns."""

    targets: Targets
    state: Any
    """For the next decision."""
    explanation: Explanation


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, complete: `decide(settings, state_before, observation, time)` gives it again, byte for byte."""

    schema: int = RECORD_SCHEMA
    time: float
    key: str
    """namespace/name."""
    policy: str = "tandem"
    settings: Settings
    state_before: Any
    observation: Observation
    targets: Targets
    state_after: Any
    explanation: Explanation
