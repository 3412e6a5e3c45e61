"""Runs one policy on one scenario."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tandem_operator.simulation.outcome import Outcome
from tandem_operator.simulation.policy import ScalingPolicy
from tandem_operator.simulation.scenario import Scenario

if TYPE_CHECKING:
    from tandem_operator.scaling.decision import Record


def simulate(
    scenario: Scenario,
    policy: ScalingPolicy,
    seed: int,
    record: Callable[[Record], None] | None = None,
    progress: Callable[[float], None] | None = None,
    clock: Callable[[], float] | None = None,
) -> Outcome:
    """The same arguments give the same outcome, byte for byte, unless a `clock` measures the decisions.

    `record` gets every decision, `progress` the share of the run that is done (0 to 1), a hundred times or so.
    """
    raise ValueError(f"the fleet of {scenario.name} is being built; {policy.name}, {seed}")
