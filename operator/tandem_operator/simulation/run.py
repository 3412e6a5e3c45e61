"""Runs one policy on one scenario."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tandem_operator.scaling.decision import Record, Targets
from tandem_operator.scaling.sanitise import sanitise
from tandem_operator.simulation.fleet import Fleet
from tandem_operator.simulation.measure import measure
from tandem_operator.simulation.outcome import Move, Outcome
from tandem_operator.simulation.policy import ScalingPolicy
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.scraper import Scraper
from tandem_operator.simulation.watch import Watch

PROGRESS_STEPS = 100
SERIES_STEPS = 360
"""Rows of the time series, about: what a plot can show."""
MIN_SERIES_S = 5.0


def simulate(
    scenario: Scenario,
    policy: ScalingPolicy,
    seed: int,
    record: Callable[[Record], None] | None = None,
    progress: Callable[[float], None] | None = None,
    clock: Callable[[], float] | None = None,
) -> Outcome:
    """The same arguments give the same outcome, byte for byte, unless a `clock` (seconds) measures the decisions.

    `record` gets every decision, `progress` the share of the run that is done (0 to 1), a hundred times.
    """
    fleet = Fleet(scenario, seed, policy.discipline, policy.convertible)
    scraper = Scraper(fleet, scenario.metrics, scenario.fleet.startup.warmth, policy.period_s, seed)
    watch = Watch(fleet, max(MIN_SERIES_S, round(scenario.until_s / SERIES_STEPS)))
    loop = Loop(scenario, policy, fleet, scraper, record, clock)
    for step in range(1, PROGRESS_STEPS + 1):
        fleet.events.run_until(scenario.until_s * step / PROGRESS_STEPS)
        if progress is not None:
            progress(step / PROGRESS_STEPS)
    fleet.settle()
    outcome = measure(scenario, policy.name, seed, fleet, watch, loop.moves, loop.seconds)
    return msgspec.structs.replace(outcome, scrapes_lost=scraper.silent / max(scraper.asked, 1))


class Loop:
    """Decides every period and does what was decided, as the operator would."""

    def __init__(
        self,
        scenario: Scenario,
        policy: ScalingPolicy,
        fleet: Fleet,
        scraper: Scraper,
        record: Callable[[Record], None] | None,
        clock: Callable[[], float] | None,
    ) -> None:
        self.moves: list[Move] = []
        """Decisions that changed a target."""
        self.seconds: list[float] = []
        """That each decision took, if there is a clock."""
        self._settings = policy.settings(scenario.settings)
        self._key = f"simulation/{scenario.name}"
        self._policy = policy
        self._fleet = fleet
        self._scraper = scraper
        self._record = record
        self._clock = clock
        self._state = policy.initial(self._settings)
        self._targets = Targets(scenario.prefill_start, scenario.decode_start)
        self._ticks = 0
        fleet.events.at(0.0, self._tick)

    def _tick(self, _: None) -> None:
        self._ticks += 1
        self._fleet.events.at(self._ticks * self._policy.period_s, self._tick)
        now, before = self._fleet.events.now, self._state
        observation = self._scraper.observe()
        started = self._clock() if self._clock else 0.0
        decision = self._policy.decide(self._settings, before, observation, now)
        if self._clock:
            self.seconds.append(self._clock() - started)
        self._state = decision.state
        if self._record is not None:
            self._record(
                Record(
                    time=now,
                    key=self._key,
                    policy=self._policy.name,
                    settings=self._settings,
                    state_before=before,
                    observation=sanitise(observation),
                    targets=decision.targets,
                    state_after=decision.state,
                    explanation=decision.explanation,
                )
            )
        if decision.targets != self._targets and self._settings.mode == "Active":
            self._targets = decision.targets
            why = decision.explanation
            self.moves.append(
                Move(
                    at_s=now,
                    prefill=self._targets.prefill,
                    decode=self._targets.decode,
                    bottleneck=why.bottleneck,
                    summary=why.summary,
                    suppressed_by=why.suppressed_by,
                )
            )
            self._fleet.supply.scale((self._targets.prefill, self._targets.decode))
