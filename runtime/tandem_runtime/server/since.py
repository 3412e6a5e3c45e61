"""What a pod had counted when it took its role: /signals count by incarnation, metrics by process."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tandem_runtime.engine.counters import Counters
from tandem_runtime.engine.loop import Engine, Iteration
from tandem_runtime.transfer.wire import TransferStats


@dataclass(frozen=True, slots=True)
class Since:
    """All 0 for the first role of a process."""

    steps: int
    tx_bytes: int
    rx_bytes: int
    counters: Counters

    @classmethod
    def now(cls, engine: Engine, sent: TransferStats, received: TransferStats) -> Since:
        """Another incarnation begins."""
        return cls(engine.iterations_total, sent.tx_bytes, received.rx_bytes, replace(engine.scheduler.counters))

    def recent(self, engine: Engine) -> list[Iteration]:
        """Steps of this incarnation that are still kept."""
        steps = engine.iterations_total - self.steps
        return list(engine.iterations)[-steps:] if steps else []


NOTHING_YET = Since(0, 0, 0, Counters())
