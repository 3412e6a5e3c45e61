"""O1: the smallest schedule found that meets the objective when pods start at once, repaired window by window.

O2 keeps its sizes and asks a start-up ahead; O3 asks only when the load is there, the limit without a forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tandem_operator.scaling.decision import Targets
from tandem_operator.simulation.oracles.fluid import Need, needs
from tandem_operator.simulation.oracles.schedule import WINDOW_S, Schedule, sizes_of
from tandem_operator.simulation.outcome import Outcome
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenario import Scenario

FINE: Final = 6
"""Parts of a window that are looked at for its peak: ten seconds each."""
REPAIRS: Final = 4
"""Rounds; each adds one pod where the objective was missed. More change the GPU-hours by less than a percent."""


@dataclass(frozen=True)
class Clairvoyant:
    """O1 and the run that shows what it attains."""

    schedule: Schedule
    outcome: Outcome

    def with_startup(self, scenario: Scenario) -> Schedule:
        """O2. The lead has a tenth to spare, as start-ups vary."""
        return replace(self.schedule, name="oracle-startup", lead_s=1.1 * scenario.fleet.startup.median_s)

    def causal(self, *, deadline: bool) -> Schedule:
        """O3 in either order of the queue; with the deadline order it has all that our router has."""
        if deadline:
            return replace(self.schedule, name="oracle-causal", convertible=True)
        return replace(self.schedule, name="oracle-causal-fifo", discipline="fifo")


def at_once(scenario: Scenario, first: Targets) -> Scenario:
    """The same scenario in a world without start-up, that begins with the schedule's first sizes and sees all."""
    startup = replace(scenario.fleet.startup, node_s=0.0, image_s=0.0, weights_s=0.0, warmup_s=0.0, spread=0.0)
    return replace(
        scenario,
        fleet=replace(scenario.fleet, startup=startup),
        prefill_start=first.prefill,
        decode_start=first.decode,
    )


def clairvoyant(
    scenario: Scenario,
    seed: int,
    repairs: int = REPAIRS,
    run: Callable[..., Outcome] = simulate,
    progress: Callable[[float], None] | None = None,
) -> Clairvoyant:
    """Knows every request of this seed. The target is that of the strictest objective."""
    fine = needs(scenario, scenario.requests(seed), WINDOW_S / FINE)
    sizes, peaks = sizes_of(mean_needs(fine)), sizes_of(peak_needs(fine))
    goal = max(objective.attainment for objective in scenario.settings.objectives)
    best: Clairvoyant | None = None
    for turn in range(repairs + 1):
        schedule = Schedule(name="oracle-clairvoyant", sizes=sizes)
        outcome = run(at_once(scenario, schedule.at(0.0)), schedule, seed)
        if best is None or outcome.attainment > best.outcome.attainment:
            best = Clairvoyant(schedule, outcome)
        if progress is not None:
            progress((turn + 1) / (repairs + 1))
        if outcome.attainment >= goal:
            break
        sizes = repaired(scenario, sizes, outcome, goal, peaks)
    assert best is not None
    return best


def mean_needs(fine: Sequence[Need]) -> list[Need]:
    """Of whole windows."""
    parts = [fine[start : start + FINE] for start in range(0, len(fine), FINE)]
    return [Need(sum(n.prefill for n in part) / len(part), sum(n.decode for n in part) / len(part)) for part in parts]


def peak_needs(fine: Sequence[Need]) -> list[Need]:
    """Of the worst part of each window."""
    parts = [fine[start : start + FINE] for start in range(0, len(fine), FINE)]
    return [Need(max(n.prefill for n in part), max(n.decode for n in part)) for part in parts]


def repaired(
    scenario: Scenario,
    sizes: tuple[Targets, ...],
    outcome: Outcome,
    goal: float,
    peaks: Sequence[Targets] = (),
) -> tuple[Targets, ...]:
    """More in every window with misses: for prefill when first tokens were late, else for decode.

    One pod, or as many as the worst part of the window needs, if those are more.
    """
    series, tpot = outcome.series, scenario.settings.objectives[0].tpot_s
    late_first: set[int] = set()
    late_next: set[int] = set()
    for row, attained in enumerate(series.attainment):
        if attained is None or attained >= goal:
            continue
        window = int(series.t_s[row] / WINDOW_S)
        steps = series.tpot_p99_s[row]
        (late_next if steps is not None and steps > tpot else late_first).add(window)
        if steps is not None and steps > tpot and (series.ttft_p99_s[row] or 0.0) > _bound(scenario):
            late_first.add(window)
    most = [*peaks, *[Targets(0, 0)] * (len(sizes) - len(peaks))]
    return tuple(
        Targets(
            max(one.prefill + 1, peak.prefill) if index in late_first else one.prefill,
            max(one.decode + 1, peak.decode) if index in late_next else one.decode,
        )
        for index, (one, peak) in enumerate(zip(sizes, most, strict=True))
    )


def _bound(scenario: Scenario) -> float:
    return scenario.settings.objectives[0].ttft_base_s
