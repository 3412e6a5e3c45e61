"""What all formulas share: history, bounds, the answer's shape. A formula itself says two sizes and one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import msgspec

from tandem_operator.scaling.decision import Decision, Explanation, Targets
from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.settings import PoolSettings, Settings
from tandem_operator.simulation.baselines.history import History, extend
from tandem_operator.simulation.baselines.view import View
from tandem_operator.simulation.policy import Discipline


class FormulaState(msgspec.Struct, frozen=True):
    """What a formula remembers."""

    history: History = History()


class Sizes(NamedTuple):
    """A formula's answer before bounds."""

    prefill: float
    decode: float
    state: Any
    why: str


@dataclass(frozen=True, kw_only=True)
class Formula:
    """One published rule at its documented defaults; dataclasses.replace makes another setting of it."""

    formula: ClassVar[str]
    """Whose published rule it is."""
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Fields that may be searched on the training part, with the values to try."""
    keep_s: ClassVar[float] = 120.0
    """History that the rule looks back on."""
    to_zero: ClassVar[bool] = False
    """Whether the rule itself can ask for no replica."""

    name: str
    period_s: float = 15.0
    discipline: Discipline = "fifo"
    convertible: bool = False

    def settings(self, given: Settings) -> Settings:
        """As the user gave them."""
        return given

    def initial(self, settings: Settings) -> Any:
        """State that knows nothing."""
        return FormulaState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""
        raise TypeError(f"{type(self).__name__} has no rule")

    def decide(self, settings: Settings, state: Any, observation: Observation, now: float) -> Decision:
        """The rule within the user's bounds."""
        history = extend(state.history, observation, now, self.keep_s)
        sizes = self.size(View(settings, observation, history, now), state)
        after = msgspec.structs.replace(sizes.state, history=history)
        targets = bound(settings, sizes.prefill, sizes.decode, self.to_zero)
        return Decision(targets=targets, state=after, explanation=Explanation(summary=sizes.why))


def bound(settings: Settings, prefill: float, decode: float, to_zero: bool) -> Targets:
    """Minimum and maximum of each pool, none of one only if none of the other, proportional shrink to the budget."""
    zero = to_zero and settings.scale_to_zero and prefill <= 0 and decode <= 0
    if zero and settings.prefill.replicas is None and settings.decode.replicas is None:
        return Targets(0, 0)
    sizes = [_clamp(settings.prefill, prefill), _clamp(settings.decode, decode)]
    pools = (settings.prefill, settings.decode)
    if settings.budget_gpus is not None:
        gpus = sum(size * pool.gpus for size, pool in zip(sizes, pools, strict=True))
        if gpus > settings.budget_gpus:
            share = settings.budget_gpus / gpus
            sizes = [
                pool.replicas if pool.replicas is not None else max(int(size * share), 1)
                for size, pool in zip(sizes, pools, strict=True)
            ]
    return Targets(*sizes)


def _clamp(pool: PoolSettings, size: float) -> int:
    if pool.replicas is not None:
        return pool.replicas
    return int(min(max(size, pool.min_replicas, 1), pool.max_replicas))
