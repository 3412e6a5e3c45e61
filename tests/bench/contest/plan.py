"""Which policy meets which scenario with which seeds, in the full and in the quick form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from tandem_operator.simulation.baselines.catalogue import BASELINES
from tandem_operator.simulation.tandem import ABLATIONS

from tests.bench.contest.probes import PROBES
from tests.bench.contest.tuned import TUNED

ORACLE: Final = "oracle-clairvoyant"
CAUSAL: Final = "oracle-causal"
ORACLES: Final = (ORACLE, CAUSAL)
MORE_ORACLES: Final = ("oracle-startup", "oracle-causal-fifo")
NEAREST: Final = ("hpa-utilisation", "queueing-model", "token-velocity")
BEST: Final = tuple(f"{name}+tuned" if TUNED.get(name) else name for name in NEAREST)
"""The three that come nearest on the training part: they get as many seeds as ours."""
SCENARIOS: Final = (
    "S1", "S1-30s", "S1-3s", "S2", "S3", "S4", "S5", "S6", "S6-metricloss", "S6-outage", "S6-modelerror", "S6-gpucap",
    "S7", "S7-noflip", "S8", "S9", "constant",
)  # fmt: skip
DAY: Final = "S6-day"
"""Nine million requests a run: in the full form, for ours and the best three, after all else; the oracles, of which one
runs it five times, with a few seeds only."""
EXTRA: Final = ("S5-nohits", "S6-delay", DAY, *PROBES)
SAME_ORACLE: Final = {
    "S1-30s": "S1",
    "S1-3s": "S1",
    "S6-metricloss": "S6",
    "S6-outage": "S6",
    "S6-modelerror": "S6",
    "S6-delay": "S6",
    "S7-noflip": "S7",
}
"""Same load, same devices: one schedule is the best in hindsight for both."""
SAME_CAUSAL: Final = {name: base for name, base in SAME_ORACLE.items() if base == "S6"}
"""An oracle sees no metrics: what disturbs them changes nothing for it."""
SEES_NOTHING: Final = (*MORE_ORACLES, "static-peak", "static-mean")
"""Nor do these: they are run on the scenario without the disturbance."""
OURS_ONLY: Final = ("S6-metricloss", "S6-outage", "S6-modelerror", "S6-gpucap", "S7-noflip")
"""In the quick form rivals run on S6 itself."""
QUICK_RIVALS: Final = (
    "hpa-utilisation",
    "concurrency-panic",
    "hybrid-regression",
    "token-capacity",
    "token-velocity",
    "static-peak",
)
FAST_RIVALS: Final = ("concurrency-panic", "token-velocity")
"""In the quick form, where pods start fast: the two that decide every two seconds."""
ABLATED: Final = ("S1", "S2", "S3", "S4", "S6", "S6-modelerror", "S6-gpucap", "S7", "S8", *PROBES)
"""Where a missing mechanism can show."""


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation. `policy` may end in +tuned."""

    scenario: str
    policy: str
    seed: int

    @property
    def oracle(self) -> Run:
        """The run whose schedule judges this one."""
        return Run(SAME_ORACLE.get(self.scenario, self.scenario), ORACLE, self.seed)

    @property
    def causal(self) -> Run:
        """The run that shows what can be had without a forecast."""
        return Run(SAME_CAUSAL.get(self.scenario, self.scenario), CAUSAL, self.seed)

    @property
    def shared(self) -> Run:
        """The run that stands for this one: scenarios that an oracle cannot tell apart have one of it."""
        return {ORACLE: self.oracle, CAUSAL: self.causal}.get(self.policy, self)


class Turn(NamedTuple):
    """When a run has its turn: what is smaller in the first field that differs goes first."""

    wave: int
    """0: the first few seeds; 1: all other seeds, and the day's first few; 2: the day's others."""
    rest: int
    """0: ours, the oracles and the best; the more above it, the less a run tells that is not told already."""
    is_best: bool
    seed: int
    rank: int
    """Among ours, the oracles and the best, in the order in which they are read."""
    place: int
    """Of the scenario."""
    policy: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`seeds`: of ours, the oracles and the best; `few`: of the rest."""

    scenarios: tuple[str, ...]
    quick: bool
    seeds: int
    few: int
    policies: tuple[str, ...] = ()
    ablations: bool = False

    def runs(self) -> list[Run]:
        """What tells most comes first: two seeds of all before ten of some, ours and the best before the rest."""
        found: dict[Run, None] = {}
        for run in sorted(self._wanted(), key=self._turn):
            if run.scenario != DAY or run.seed < self.few:
                found[run.oracle] = None
            found[run.shared] = None
        return list(found)

    def _wanted(self) -> Iterator[Run]:
        for scenario in self.scenarios:
            for policy in self._policies(scenario):
                for seed in range(self._seeds(scenario, policy)):
                    yield Run(scenario, policy, seed)

    def _seeds(self, scenario: str, policy: str) -> int:
        """A day of an oracle costs hours: a few seeds of it must do."""
        is_known_well = policy in ("tandem", *BEST, *ABLATIONS) or (policy in ORACLES and scenario != DAY)
        return self.seeds if is_known_well else min(self.few, self.seeds)

    def _turn(self, run: Run) -> Turn:
        first = (*ORACLES, "tandem", *BEST)
        is_rest = run.policy not in first
        return Turn(
            wave=int(run.seed >= self.few) + int(run.scenario == DAY),
            rest=1 + int(run.scenario in SAME_ORACLE) + int(run.policy.endswith("+tuned")) if is_rest else 0,
            is_best=run.policy in BEST,
            seed=run.seed,
            rank=len(first) if is_rest else first.index(run.policy),
            place=self.scenarios.index(run.scenario),
            policy=run.policy,
        )

    def _policies(self, scenario: str) -> tuple[str, ...]:
        if self.policies:
            return (*ORACLES, *self.policies)
        if scenario in PROBES:
            return (*ORACLES, "tandem", PROBES[scenario][1])
        if self.ablations:
            return (*ORACLES, "tandem", *(ABLATIONS if scenario in ABLATED else ()))
        if self.quick:
            rivals = () if scenario in OURS_ONLY else FAST_RIVALS if scenario.startswith("S1-") else QUICK_RIVALS
            return (*ORACLES, "tandem", *rivals)
        if scenario == DAY:
            return (*ORACLES, "tandem", *BEST)
        tuned = tuple(f"{name}+tuned" for name in BASELINES if TUNED.get(name))
        blind = () if scenario in SAME_CAUSAL else SEES_NOTHING
        return (*ORACLES, "tandem", *BASELINES, *tuned, *blind)
