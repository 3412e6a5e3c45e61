"""Sizes that never change: the honest competitor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tandem_operator.simulation.baselines.formula import Formula, Sizes
from tandem_operator.simulation.baselines.view import View
from tandem_operator.simulation.policy import Discipline


@dataclass(frozen=True, kw_only=True)
class Static(Formula):
    """`static-peak` and `static-mean` get their sizes from the oracle's schedule of the workload."""

    formula: ClassVar[str] = "a fixed number of replicas"

    name: str = "static"
    period_s: float = 60.0
    discipline: Discipline = "deadline"
    """Whoever does not scale can still have our router."""
    prefill: int = 1
    decode: int = 1

    def size(self, view: View, state: Any) -> Sizes:
        """Always the same."""
        return Sizes(self.prefill, self.decode, state, "fixed")
