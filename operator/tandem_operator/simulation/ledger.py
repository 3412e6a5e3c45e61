"""What happened to every request, in columns: a row per request, in order of arrival."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from tandem_operator.simulation.flight import Flight

UNKNOWN = float("nan")


class Verdict(IntEnum):
    """How a request ended."""

    IN_FLIGHT = 0
    MET = 1
    MISSED = 2
    SHED = 3
    FAILED = 4


IN_FLIGHT: Final = int(Verdict.IN_FLIGHT)


class Ledger:
    """Latencies are NaN until they are known. `meets(ttft_s, ttft_bound_s, tpot_s, tpot_bound_s)` is the law."""

    def __init__(self, meets: Callable[[float, float, float, float], bool]) -> None:
        self._meets = meets
        self.arrived_s = array("d")
        self.ttft_bound_s = array("d")
        self.prompt_tokens = array("l")
        self.computed_tokens = array("l")
        """Of the prompt, what was not cached."""
        self.output_tokens = array("l")
        self.ttft_s = array("d")
        self.tpot_s = array("d")
        self.verdict = bytearray()
        self.slo_class = array("H")
        self.classes: list[str] = []
        self._numbers: dict[str, int] = {}
        self.preempted = 0

    def __len__(self) -> int:
        return len(self.verdict)

    def arrive(self, flight: Flight) -> None:
        """A row for it; rows are numbered as flights are."""
        self.arrived_s.append(flight.arrived_s)
        self.ttft_bound_s.append(flight.deadline_s - flight.arrived_s)
        self.prompt_tokens.append(flight.prompt_tokens)
        self.computed_tokens.append(flight.prompt_tokens - flight.hinted_cached)
        self.output_tokens.append(flight.output_tokens)
        self.ttft_s.append(UNKNOWN)
        self.tpot_s.append(UNKNOWN)
        self.verdict.append(IN_FLIGHT)
        number = self._numbers.get(flight.slo_class, -1)
        if number < 0:
            number = self._numbers[flight.slo_class] = len(self.classes)
            self.classes.append(flight.slo_class)
        self.slo_class.append(number)

    def finish(self, flight: Flight, now: float) -> bool:
        """It has its last token. True when it was met."""
        row = flight.row
        ttft_s = flight.first_s - flight.arrived_s
        tpot_s = (now - flight.first_s) / (flight.output_tokens - 1) if flight.output_tokens > 1 else UNKNOWN
        self.ttft_s[row] = ttft_s
        self.tpot_s[row] = tpot_s
        bound = self.ttft_bound_s[row]
        met = self._meets(ttft_s, bound, 0.0 if flight.output_tokens == 1 else tpot_s, flight.tpot_s)
        self.verdict[row] = Verdict.MET if met else Verdict.MISSED
        return met

    def counts(self, row: int, end_s: float) -> bool:
        """A request that has not ended counts, as a miss, once its first token is late."""
        if self.verdict[row] != Verdict.IN_FLIGHT:
            return True
        bound_s = self.ttft_bound_s[row]
        ttft_s = self.ttft_s[row]
        return ttft_s > bound_s if ttft_s == ttft_s else self.arrived_s[row] + bound_s < end_s

    def cached(self, flight: Flight) -> None:
        """Known once a pod has taken it."""
        if not flight.attempt:
            self.computed_tokens[flight.row] = flight.prompt_tokens - flight.cached

    def first_token(self, flight: Flight) -> None:
        """Known before the end, so that long answers show in the TTFT of their time."""
        self.ttft_s[flight.row] = flight.first_s - flight.arrived_s

    def shed(self, flight: Flight) -> None:
        """Refused for lack of capacity."""
        self.verdict[flight.row] = Verdict.SHED

    def fail(self, flight: Flight) -> None:
        """Its time was up."""
        self.verdict[flight.row] = Verdict.FAILED
