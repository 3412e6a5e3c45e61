"""The scaling law as a policy of the simulator, whole or with one of its mechanisms switched off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from tandem_operator.scaling.decide import decide
from tandem_operator.scaling.decision import Decision
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.state import State
from tandem_operator.simulation.policy import Discipline


@dataclass(frozen=True, kw_only=True)
class Tandem:
    """`off`: fields of Law that are false here; `convertible` and `discipline` are the router's part of the law."""

    name: str = "tandem"
    off: tuple[str, ...] = ()
    period_s: float = 2.0
    discipline: Discipline = "deadline"
    convertible: bool = True
    flips: bool = True
    """Pods may change roles in place, where the fleet can do it."""

    def settings(self, given: Settings) -> Settings:
        """With what is off switched off."""
        if not self.flips:
            given = msgspec.structs.replace(given, role_flip=False)
        if not self.off:
            return given
        law = msgspec.structs.replace(given.law, **dict.fromkeys(self.off, False))
        return msgspec.structs.replace(given, law=law)

    def initial(self, settings: Settings) -> State:
        """Knows nothing."""
        return State()

    def decide(self, settings: Settings, state: State, observation: Observation, now: float) -> Decision:
        """The law itself. `settings` are those that `settings` made."""
        return decide(settings, state, observation, now)


ABLATIONS: Final[dict[str, Tandem]] = {
    one.name: one
    for one in (
        Tandem(name="tandem-no-deadline", discipline="fifo"),
        Tandem(name="tandem-no-split", off=("split_backlog",)),
        Tandem(name="tandem-no-lead", off=("lead_quantile",)),
        Tandem(name="tandem-no-convertible", off=("count_convertible",), convertible=False),
        Tandem(name="tandem-no-flip", flips=False),
        Tandem(name="tandem-no-calibration", off=("calibrate",)),
        Tandem(name="tandem-no-roofline", off=("use_prior",)),
        Tandem(name="tandem-no-coupling", off=("couple",)),
        Tandem(name="tandem-no-forecast", off=("forecast",)),
        Tandem(name="tandem-no-bursts", off=("expect_bursts",)),
    )
}
"""Each lacks one mechanism; what it loses is what the mechanism buys."""
SWITCHES: Final = tuple(name for name, value in msgspec.structs.asdict(Law()).items() if isinstance(value, bool))
"""Mechanisms of the law that can be switched off."""
