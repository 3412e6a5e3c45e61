"""Every rival's formula by name, at its documented defaults, and the settings that a search may try."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tandem_operator.simulation.baselines.bounded_ratio import BoundedRatio
from tandem_operator.simulation.baselines.concurrency import Concurrency
from tandem_operator.simulation.baselines.fixed_ratio import FixedRatio
from tandem_operator.simulation.baselines.formula import Formula
from tandem_operator.simulation.baselines.hpa import CacheQueueHpa, UtilisationHpa
from tandem_operator.simulation.baselines.profiled_rates import ProfiledRates
from tandem_operator.simulation.baselines.queue_length import QueueLength
from tandem_operator.simulation.baselines.queueing_model import QueueingModel
from tandem_operator.simulation.baselines.regression_rates import RegressionRates
from tandem_operator.simulation.baselines.saturation import Saturation
from tandem_operator.simulation.baselines.token_capacity import TokenCapacity
from tandem_operator.simulation.baselines.velocity import Velocity

_ALL: Final[tuple[Formula, ...]] = (
    UtilisationHpa(),
    CacheQueueHpa(),
    QueueLength(),
    Concurrency(),
    BoundedRatio(),
    ProfiledRates(),
    RegressionRates(name="throughput-regression", period_s=180.0, fast=False),
    RegressionRates(name="load-regression", slow=False),
    RegressionRates(name="hybrid-regression"),
    RegressionRates(name="hybrid-regression-constant", predictor="constant"),
    RegressionRates(name="hybrid-regression-kalman", predictor="kalman"),
    Saturation(),
    TokenCapacity(),
    QueueingModel(),
    Velocity(),
    FixedRatio(),
)
BASELINES: Final[dict[str, Formula]] = {formula.name: formula for formula in _ALL}
"""Without the two static ones, whose sizes depend on the workload."""


def baseline(name: str) -> Formula:
    """Raises ValueError with the known names."""
    if name not in BASELINES:
        raise ValueError(f"no baseline is named {name!r}; there are {', '.join(sorted(BASELINES))}")
    return BASELINES[name]


def settings_of(formula: Formula) -> Iterator[dict[str, object]]:
    """Every point of the formula's grid, as fields to replace."""
    for values in itertools.product(*formula.grid.values()):
        yield dict(zip(formula.grid, values, strict=True))


def tuned(formula: Formula, point: dict[str, object]) -> Formula:
    """The formula at one point of its grid. A slow loop's interval is also its period where nothing else runs."""
    changed = replace(formula, **point)  # type: ignore[arg-type]
    if isinstance(changed, RegressionRates) and not changed.fast:
        changed = replace(changed, period_s=changed.slow_s)
    return changed
