"""Looks at the fleet in even steps of virtual time, for the plots and for what is counted in pods."""

from __future__ import annotations

from typing import NamedTuple

from tandem_operator.simulation.decode import DecodePod
from tandem_operator.simulation.fleet import Fleet
from tandem_operator.simulation.supply import Pool


class Sight(NamedTuple):
    """The fleet at one moment."""

    t_s: float
    queue_requests: int
    queue_tokens: int
    prefill_ready: int
    prefill_want: int
    prefill_pods: int
    decode_ready: int
    decode_want: int
    decode_pods: int
    running: int
    gpus: int


class Watch:
    """One sight per step, the first at time 0."""

    def __init__(self, fleet: Fleet, step_s: float) -> None:
        self.step_s = step_s
        self.sights: list[Sight] = []
        self._fleet = fleet
        fleet.events.at(0.0, self._look)

    def _look(self, _: None) -> None:
        fleet = self._fleet
        queue = fleet.router.queue
        billed = [pod for pool in (fleet.prefill, fleet.decode) for pod in pool.pods if pod.scheduled_s >= 0]
        decodes = [pod for pod in billed if isinstance(pod, DecodePod)]
        self.sights.append(
            Sight(
                fleet.events.now,
                len(queue),
                queue.tokens,
                _ready(fleet.prefill),
                fleet.prefill.target,
                len(billed) - len(decodes),
                _ready(fleet.decode),
                fleet.decode.target,
                len(decodes),
                sum(pod.sequences for pod in decodes),
                sum(pod.gpus for pod in billed),
            )
        )
        fleet.events.at(len(self.sights) * self.step_s, self._look)


def _ready(pool: Pool) -> int:
    return sum(pod.takes_work for pod in pool.pods)
