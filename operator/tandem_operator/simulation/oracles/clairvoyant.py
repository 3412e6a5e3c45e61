"""O1: the smallest schedule found that meets the objective when pods start at once, repaired window by window.

O2 keeps its sizes and asks a start-up ahead; O3 knows what has arrived and no more, the limit without a forecast.
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
NOISE: Final = 0.1
"""Of the load of ten seconds, what may be chance: so much lower it counts against that of the minute."""
REPAIRS: Final = 4
"""Rounds; each adds one pod where the objective was missed. More change the GPU-hours by less than a percent."""


@dataclass(frozen=True)
class Clairvoyant:
    """O1 and the run that shows what it attains."""

    schedule: Schedule
    outcome: Outcome
    present: tuple[Targets, ...] = ()
    """Sizes by ten seconds for the load that had arrived when they began."""

    def with_startup(self, scenario: Scenario) -> Schedule:
        """O2. The lead has a tenth to spare, as start-ups vary."""
        return replace(self.schedule, name="oracle-startup", lead_s=1.1 * scenario.fleet.startup.median_s)

    def causal(self, *, deadline: bool) -> Schedule:
        """O3 in either order of the queue; with the deadline order it has all that our router has."""
        known = replace(self.schedule, sizes=self.present, window_s=WINDOW_S / FINE)
        if deadline:
            return replace(known, name="oracle-causal", convertible=True)
        return replace(known, name="oracle-causal-fifo", discipline="fifo")


def at_once(scenario: Scenario, first: Targets) -> Scenario:
    """The same scenario in a world without start-up, that begins with the schedule's first sizes and sees all."""
    startup = replace(scenario.fleet.startup, node_s=0.0, image_s=0.0, weights_s=0.0, warmup_s=0.0, spread=0.0)
    return replace(
        scenario,
        fleet=replace(scenario.fleet, startup=startup, flip_s=None),
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
            best = Clairvoyant(schedule, outcome, present_sizes(fine, sizes))
        if progress is not None:
            progress((turn + 1) / (repairs + 1))
        if outcome.attainment >= goal:
            break
        sizes = repaired(scenario, sizes, outcome, goal, peaks)
    assert best is not None
    return best


def present_sizes(fine: Sequence[Need], sizes: Sequence[Targets]) -> tuple[Targets, ...]:
    """For each part of a window what the load before it needs: of the last minute, or of the last part if that is more.

    With as many pods on top as the schedule had to add in the last whole minute. The first part knows its own load.
    """
    plain = sizes_of(mean_needs(fine))
    found = []
    for index in range(len(fine)):
        past = fine[max(index - FINE, 0) : index] or fine[:1]
        last, mean = past[-1], mean_needs(past)[0]
        kept = 1 - NOISE if index else 1.0
        need = Need(max(mean.prefill, kept * last.prefill), max(mean.decode, kept * last.decode))
        base, minute = sizes_of([need])[0], index // FINE - 1
        extra = (
            (sizes[minute].prefill - plain[minute].prefill, sizes[minute].decode - plain[minute].decode)
            if minute >= 0 and base.prefill
            else (0, 0)
        )
        found.append(Targets(base.prefill + extra[0], base.decode + extra[1]))
    return tuple(found)


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
