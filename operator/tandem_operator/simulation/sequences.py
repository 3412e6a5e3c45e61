"""The sequences that a decode pod steps through: their KV, their ends, and the closed form of their steps.

A step of n sequences over K tokens of KV takes phi0 + phi1 n + phi2 K and makes K grow by n.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import sqrt

from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.simulation.events import Events
from tandem_operator.simulation.flight import Flight
from tandem_operator.simulation.pod import Pod

EARLY = 1e-9
"""Share of a step by which a boundary may lie before a moment and still be that moment: rounding of floats."""


class Sequences(Pod):
    """Steps are numbered; the stretch that runs began at `_base_s` with step `_step` and ends with `_wake_step`."""

    def __init__(self, name: str, events: Events, gpus: int, coefficients: Coefficients) -> None:
        super().__init__(name, events, gpus)
        self.coefficients = coefficients
        self.kv_total = coefficients.kv_tokens
        self.max_sequences = coefficients.max_sequences
        self.reserved = 0
        """KV tokens kept free for requests that are on their way here or wait for a slot."""
        self._phi = (coefficients.decode.phi0_s, coefficients.decode.phi1_s, coefficients.decode.phi2_s)
        self._running: dict[Flight, None] = {}
        self._ends: list[tuple[int, int, Flight]] = []
        self._entries = 0
        self._kv = 0
        self._step = 0
        self._base_s = 0.0
        self._wake_step = 0
        self._chunks: list[tuple[Flight, int]] = []
        """Prompts in the step that runs, and how many of their tokens; then it is the only step of its stretch."""

    @property
    def sequences(self) -> int:
        """In its steps now."""
        return len(self._running)

    def kv_used(self, now: float) -> int:
        """Held and reserved tokens."""
        return self._kv + len(self._running) * self._steps_done(now) + self.reserved

    def output_now(self, now: float) -> int:
        """Tokens given out so far, steps of the current stretch included."""
        return self.output_tokens + len(self._running) * self._steps_done(now)

    def _settle_emitted(self, now: float) -> None:
        done = self._step + self._steps_done(now)
        for flight in self._running:
            flight.emitted += done - flight.entered_step

    def _emit_first(self, flight: Flight) -> None:
        flight.emitted += 1
        self.output_tokens += 1
        if flight.first_s < 0:
            flight.first_s = self.events.now

    def _unreserve(self, flight: Flight) -> None:
        self.reserved -= flight.reserved
        flight.reserved = 0

    def _seconds(self, steps: int) -> float:
        """Of the next `steps` steps from the base."""
        phi0, phi1, phi2 = self._phi
        n = len(self._running)
        return steps * (phi0 + phi1 * n + phi2 * (self._kv + n * (steps - 1) / 2))

    def _steps_in(self, seconds: float) -> float:
        """How many steps, and what part of one, fit: the inverse of `_seconds`."""
        phi0, phi1, phi2 = self._phi
        n = len(self._running)
        half = phi2 * n / 2
        first = phi0 + phi1 * n + phi2 * self._kv - half
        return 2 * seconds / (first + sqrt(first * first + 4 * half * seconds))

    def _steps_done(self, now: float) -> int:
        if self._chunks or not self._running or now <= self._base_s:
            return 0
        return min(self._wake_step - self._step, int(self._steps_in(now - self._base_s) + EARLY))

    def _take_finished(self, finished: list[Flight]) -> None:
        ends, step = self._ends, self._step
        while ends and ends[0][0] <= step:
            end, _, flight = heappop(ends)
            if flight.running and flight.decode is self and flight.end_step == end:
                flight.running = False
                flight.emitted = flight.output_tokens
                del self._running[flight]
                self._kv -= flight.context + end - flight.entered_step
                finished.append(flight)

    def _enter(self, flight: Flight) -> None:
        self._unreserve(flight)
        flight.running = True
        flight.entered_step = self._step
        flight.end_step = self._step + flight.output_tokens - flight.emitted
        self._running[flight] = None
        self._kv += flight.context
        self._entries += 1
        heappush(self._ends, (flight.end_step, self._entries, flight))
