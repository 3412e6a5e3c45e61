"""A decode pod: while nobody comes or goes, its steps are one closed form; with prompts to compute, one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop
from math import ceil
from typing import Literal

from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.scaling.observation import Iteration
from tandem_operator.simulation.events import Events
from tandem_operator.simulation.flight import Flight
from tandem_operator.simulation.link import Port
from tandem_operator.simulation.sequences import EARLY, Sequences


class DecodePod(Sequences):
    """`done` gets every request with its last token, `freed` is called when room may have come."""

    role: Literal["prefill", "decode"] = "decode"

    def __init__(
        self,
        name: str,
        events: Events,
        gpus: int,
        coefficients: Coefficients,
        prompt_budget: int,
        done: Callable[[Flight], None],
        freed: Callable[[DecodePod], None],
        is_both: bool = False,
    ) -> None:
        super().__init__(name, events, gpus, coefficients)
        self.port = Port()
        self.expected = 0
        """Requests that are on their way here."""
        self.prompts: deque[Flight] = deque()
        """Prompts to be computed here: conversions, preempted requests, everything in a pod that does both."""
        self.prompt_tokens_waiting = 0
        self.busy_s = 0.0
        self.is_both = is_both
        """It computes all its prompts itself; sequences that decode take their tokens from the budget of a step."""
        self._budget = prompt_budget
        self._theta = coefficients.prefill
        self._done = done
        self._freed = freed
        self._joining: deque[Flight] = deque()
        self._version = 0
        self._at_wake = self._wake
        """Bound once, as every stretch asks for it."""

    # --- what others see -------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing in it and nothing on its way."""
        return not (self._running or self._joining or self.prompts or self.expected)

    @property
    def waiting(self) -> int:
        """Here, but in no step yet."""
        return len(self._joining) + len(self.prompts)

    @property
    def requests(self) -> int:
        """In it or on their way."""
        return len(self._running) + len(self._joining) + len(self.prompts) + self.expected

    def inside(self) -> list[Flight]:
        """All that are here."""
        return [*self._running, *self._joining, *self.prompts]

    # --- coming in -------------------------------------------------------------------------------------------

    def reserve(self, flight: Flight) -> None:
        """A request is on its way here."""
        flight.decode = self
        flight.reserved = flight.context + 1
        self.reserved += flight.reserved
        self.expected += 1
        self.served = True
        self._watch_room()

    def cancel(self, flight: Flight) -> None:
        """It does not come after all."""
        self.expected -= 1
        self._unreserve(flight)

    def join(self, flight: Flight) -> None:
        """Its KV is here; its first token goes to the client now, the next come with the pod's steps."""
        self.expected -= 1
        self._emit_first(flight)
        if flight.emitted >= flight.output_tokens:
            self._unreserve(flight)
            self._done(flight)
            return
        self._joining.append(flight)
        self._look_at_boundary()

    def compute(self, flight: Flight) -> None:
        """Computes the prompt here too; follows a `reserve`."""
        self.expected -= 1
        self.wait(flight)

    def wait(self, flight: Flight) -> None:
        """Queues the prompt here: its KV is taken when there is room and its turn comes."""
        flight.decode = self
        flight.cached = min(flight.hinted_cached, flight.context - 1)
        flight.computed = flight.cached
        self.prompts.append(flight)
        self.prompt_tokens_waiting += flight.context - flight.computed
        self._look_at_boundary()

    def drop_all(self) -> list[Flight]:
        """The pod is killed: all that was in it."""
        self._settle_emitted(self.events.now)
        lost = self.inside()
        self._running.clear()
        self._joining.clear()
        self.prompts.clear()
        self._version += 1
        return lost

    # --- steps -----------------------------------------------------------------------------------------------

    def _look_at_boundary(self) -> None:
        """Someone wants in: at the end of the step that runs."""
        now = self.events.now
        if not self._running and not self._chunks:
            self._base_s = now
            self._version += 1
            self._boundary([])
        elif not self._chunks:
            self._wake_at(self._step + max(1, ceil(self._steps_in(now - self._base_s) - EARLY)))

    def _watch_room(self) -> None:
        """KV that was promised may make the present stretch too long."""
        if self._running and not self._chunks:
            room = (self.kv_total - self.reserved - self._kv) // len(self._running)
            if self._wake_step - self._step > room:
                done = ceil(self._steps_in(self.events.now - self._base_s) - EARLY)
                self._wake_at(self._step + max(1, done, room))

    def _wake_at(self, step: int) -> None:
        if step < self._wake_step:
            self._wake_step = step
            self._version += 1
            self.events.at(self._base_s + self._seconds(step - self._step), self._at_wake, self._version)

    def _wake(self, version: int) -> None:
        if version != self._version:
            return
        now, n = self.events.now, len(self._running)
        steps = self._wake_step - self._step
        self.busy_s += now - self._base_s
        finished: list[Flight] = []
        computed = bool(self._chunks)
        if computed:
            finished = self._end_chunks()
        elif n:
            last = self._kv + n * (steps - 1)
            self.iterations.append(Iteration(n, last, 0, self._phi[0] + self._phi[1] * n + self._phi[2] * last))
            self.iterations_total += 1
        self._kv += n * steps
        self.output_tokens += n * steps
        self._step = self._wake_step
        self._base_s = now
        self._boundary(finished)
        if computed and not finished and self.prompt_tokens_waiting <= self._budget:
            self._freed(self)  # it may be given the next prompt

    def _boundary(self, finished: list[Flight]) -> None:
        """Between two steps: out with the finished, in with who waits, room made, next stretch."""
        self._take_finished(finished)
        self._admit()
        self._make_room()
        self._plan()
        for flight in finished:
            self._done(flight)
        if finished:
            self._freed(self)

    def _admit(self) -> None:
        joining = self._joining
        while joining and len(self._running) < self.max_sequences:
            self._enter(joining.popleft())

    def _make_room(self) -> None:
        """The youngest gives its KV back and is computed again later, here."""
        while len(self._running) > 1 and self._kv + len(self._running) + self.reserved > self.kv_total:
            flight = next(reversed(self._running))
            del self._running[flight]
            done = self._step - flight.entered_step
            self._kv -= flight.context + done
            flight.running = False
            flight.emitted += done
            flight.context += done
            flight.computed = 0
            self.preemptions += 1
            self.prompts.appendleft(flight)
            self.prompt_tokens_waiting += flight.context

    def _plan(self) -> None:
        """The next stretch: until the first end or until the KV is full, or one step with prompts in it."""
        self._version += 1
        if self.prompts and self._plan_chunks():
            return
        n = len(self._running)
        if n == 0:
            self._wake_step = self._step
            return
        ends = self._ends
        while not (ends[0][2].running and ends[0][2].end_step == ends[0][0] and ends[0][2].decode is self):
            heappop(ends)
        room = (self.kv_total - self.reserved - self._kv) // n
        steps = max(1, min(ends[0][0] - self._step, room))
        self._wake_step = self._step + steps
        self.events.at(self._base_s + self._seconds(steps), self._at_wake, self._version)

    # --- prompts ---------------------------------------------------------------------------------------------

    def _plan_chunks(self) -> bool:
        """One step that computes prompts beside the sequences that run. False when no prompt may start."""
        n = len(self._running)
        budget = self._budget - (n if self.is_both else 0)
        is_full = False
        theta = self._theta
        seconds, tokens, attended = 0.0, 0, 0.0
        for flight in self.prompts:
            if budget <= 0 or n + len(self._chunks) >= self.max_sequences:
                break
            if flight.reserved == 0 and (is_full or not self._reserve_again(flight)):
                is_full = True  # who came later and needs less does not pass, who has begun goes on
                continue
            chunk = min(budget, flight.context - flight.computed)
            self._chunks.append((flight, chunk))
            seconds += chunk * (theta.theta1_s + theta.theta2_s * (flight.computed + chunk / 2))
            attended += chunk * (flight.computed + chunk / 2)
            tokens += chunk
            budget -= chunk
        if not self._chunks:
            return False
        seconds += self._seconds(1) if n else theta.theta0_s
        self.iterations.append(Iteration(n, self._kv, tokens, seconds, attended))
        self.iterations_total += 1
        self._wake_step = self._step + 1
        self.events.at(self._base_s + seconds, self._at_wake, self._version)
        return True

    def _reserve_again(self, flight: Flight) -> bool:
        """A preempted request waits until there is room for all of it."""
        need = flight.context + 1
        if self._running and self._kv + len(self._running) + self.reserved + need > self.kv_total:
            return False
        flight.reserved = need
        self.reserved += need
        return True

    def _end_chunks(self) -> list[Flight]:
        finished: list[Flight] = []
        for flight, chunk in self._chunks:
            flight.computed += chunk
            self.prompt_tokens += chunk
            self.prompt_tokens_waiting -= chunk
            if flight.computed < flight.context:
                continue
            self.prompts.remove(flight)
            self._emit_first(flight)
            if flight.emitted >= flight.output_tokens:
                self._unreserve(flight)
                finished.append(flight)
            else:
                self._joining.append(flight)
        self._chunks = []
        return finished
