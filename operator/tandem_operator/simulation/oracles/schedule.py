"""Sizes over time as a policy: with all of the future (lead), or only with the present (no lead)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from tandem_operator.scaling.decision import Decision, Explanation, Targets
from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.settings import Settings
from tandem_operator.simulation.baselines.formula import bound
from tandem_operator.simulation.baselines.static import Static
from tandem_operator.simulation.oracles.fluid import Need
from tandem_operator.simulation.policy import Discipline

WINDOW_S: Final = 60.0
"""Of a schedule: as fine as pods that take minutes to start can use."""
USE: Final = 0.92
"""Share of a pod's time that a schedule plans with before it is repaired."""


class Nothing(msgspec.Struct, frozen=True):
    """An oracle remembers nothing."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Targets by window. `lead_s` > 0 asks so early that pods are ready when they are needed."""

    name: str
    sizes: tuple[Targets, ...]
    window_s: float = WINDOW_S
    lead_s: float = 0.0
    period_s: float = 5.0
    discipline: Discipline = "deadline"
    convertible: bool = False

    def settings(self, given: Settings) -> Settings:
        """As the user gave them."""
        return given

    def initial(self, settings: Settings) -> Nothing:
        """None."""
        return Nothing()

    def at(self, seconds: float) -> Targets:
        """The largest sizes from now until the lead has passed."""
        last = len(self.sizes) - 1
        first = min(max(int(seconds / self.window_s), 0), last)
        ahead = self.sizes[first : min(int((seconds + self.lead_s) / self.window_s), last) + 1]
        return Targets(max(one.prefill for one in ahead), max(one.decode for one in ahead))

    def decide(self, settings: Settings, state: object, observation: Observation, now: float) -> Decision:
        """By the clock alone."""
        want = self.at(now)
        targets = bound(settings, want.prefill, want.decode, to_zero=True)
        return Decision(targets, state, Explanation(summary=f"schedule for {now:.0f} s"))


def sizes_of(needs: Iterable[Need], use: float = USE) -> tuple[Targets, ...]:
    """Whole pods; none only where nothing at all is needed."""
    sizes = []
    for need in needs:
        prefill, decode = math.ceil(need.prefill / use - 1e-9), math.ceil(need.decode / use - 1e-9)
        sizes.append(Targets(max(prefill, 1), max(decode, 1)) if prefill or decode else Targets(0, 0))
    return tuple(sizes)


def static_peak(schedule: Schedule) -> Static:
    """The largest size of each pool, all of the time."""
    return Static(
        name="static-peak",
        prefill=max(max(one.prefill for one in schedule.sizes), 1),
        decode=max(max(one.decode for one in schedule.sizes), 1),
    )


def static_mean(schedule: Schedule) -> Static:
    """The mean size of each pool, rounded up."""
    count = len(schedule.sizes)
    return Static(
        name="static-mean",
        prefill=max(math.ceil(sum(one.prefill for one in schedule.sizes) / count - 1e-9), 1),
        decode=max(math.ceil(sum(one.decode for one in schedule.sizes) / count - 1e-9), 1),
    )
