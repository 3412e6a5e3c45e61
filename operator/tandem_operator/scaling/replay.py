"""A decision from its record alone: the same inputs give the same answer, byte for byte, or the law has changed."""

from __future__ import annotations

import msgspec

from tandem_operator.scaling.decide import decide
from tandem_operator.scaling.decision import Decision, Record
from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.sanitise import sanitise
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.state import State


def record(
    settings: Settings, state: State, observation: Observation, now: float, key: str, decision: Decision
) -> Record:
    """What to keep of a decision. Values that JSON cannot carry are kept as the law understood them."""
    return Record(
        time=now,
        key=key,
        settings=settings,
        state_before=state,
        observation=sanitise(observation),
        targets=decision.targets,
        state_after=decision.state,
        explanation=decision.explanation,
    )


def replay(kept: Record) -> Record:
    """The record of the same decision made again. Raises msgspec.ValidationError when `state_before` is no State."""
    state = kept.state_before
    if not isinstance(state, State):
        state = msgspec.convert(state, State)
    decision = decide(kept.settings, state, kept.observation, kept.time)
    return msgspec.structs.replace(
        kept, targets=decision.targets, state_after=decision.state, explanation=decision.explanation
    )
