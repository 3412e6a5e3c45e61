"""The scenarios of the evaluation by name."""

from __future__ import annotations

from tandem_operator.simulation.arrivals import Steps
from tandem_operator.simulation.lengths import CHAT
from tandem_operator.simulation.pinned import COLD, TTFT_SOLO_FACTOR, fleet, settings
from tandem_operator.simulation.scenario import Scenario, Startup
from tandem_operator.simulation.workload import Synthetic


def scenario(name: str, quick: bool = False) -> Scenario:
    """Raises ValueError naming the scenarios."""
    return step(name, COLD, quick)


def step(name: str, startup: Startup, quick: bool) -> Scenario:
    """30, 150, 30 requests per second."""
    rate = Steps(((0.0, 30.0), (600.0, 150.0), (1500.0, 30.0)))
    return Scenario(
        name=name,
        describe="five times the load for a quarter of an hour",
        workload=Synthetic(rate, CHAT, 2700.0),
        settings=settings(),
        fleet=fleet(startup),
        ttft_solo_factor=TTFT_SOLO_FACTOR,
        steps_s=(600.0,),
    )
