"""A prefill pod: prompts first come first served, in steps of at most `step_tokens` tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Literal

from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.scaling.observation import Iteration
from tandem_operator.simulation.events import Events
from tandem_operator.simulation.flight import Flight
from tandem_operator.simulation.link import Port
from tandem_operator.simulation.pod import Pod
from tandem_operator.simulation.prefix_cache import PrefixCache


class PrefillPod(Pod):
    """`done` gets every prompt when its last token is computed; `stepped` is called after a step, `idled` the last."""

    role: Literal["prefill", "decode"] = "prefill"

    def __init__(
        self,
        name: str,
        events: Events,
        gpus: int,
        coefficients: Coefficients,
        step_tokens: int,
        cache_blocks: int,
        block_tokens: int,
        done: Callable[[Flight], None],
        stepped: Callable[[PrefillPod], None],
        idled: Callable[[PrefillPod], None],
    ) -> None:
        super().__init__(name, events, gpus)
        self.coefficients = coefficients
        self.waiting_tokens = 0
        """Of all prompts in it, what is not computed yet."""
        self.requests = 0
        """In it, those included whose KV is still on its way out."""
        self.busy_s = 0.0
        self.port = Port()
        self.cache = PrefixCache(cache_blocks) if cache_blocks else None
        self._block_tokens = block_tokens
        self._step_tokens = step_tokens
        self._queue: deque[Flight] = deque()
        self._batch: list[tuple[Flight, int]] = []
        self._batch_tokens = 0
        self._step_ends_s = 0.0
        self._at_end = self._end_step
        """Bound once, as every step asks for it."""
        self._done = done
        self._stepped = stepped
        self._idled = idled
        theta = coefficients.prefill
        self._theta = (theta.theta0_s, theta.theta1_s, theta.theta2_s)

    @property
    def idle(self) -> bool:
        """Nothing in it."""
        return self.requests == 0

    @property
    def waiting(self) -> int:
        """Prompts that are not in a step."""
        return len(self._queue)

    def busy_until(self, now: float) -> float:
        """When all that it has now is computed."""
        if not self._batch:
            return now
        left = self.waiting_tokens - self._batch_tokens
        theta0, theta1, theta2 = self._theta
        if left <= 0:
            return self._step_ends_s
        mean = left / (len(self._queue) or 1)
        steps = ceil(left / self._step_tokens)
        return self._step_ends_s + steps * theta0 + left * (theta1 + theta2 * mean / 2)

    def cached_tokens(self, flight: Flight) -> int:
        """Of its prompt, what need not be computed here."""
        hit = flight.hinted_cached
        if self.cache is not None and flight.blocks:
            hit = max(hit, self.cache.hits(flight.blocks) * self._block_tokens)
        return min(hit, flight.context - 1)

    def take(self, flight: Flight) -> None:
        """Puts it at the end of the pod's queue."""
        flight.prefill = self
        flight.cached = self.cached_tokens(flight)
        flight.computed = flight.cached
        self.waiting_tokens += flight.context - flight.computed
        self.requests += 1
        self.served = True
        self._queue.append(flight)
        if not self._batch:
            self._start_step()

    def release(self, flight: Flight) -> None:
        """Its KV is over, or nobody wants it any more."""
        self.requests -= 1

    def drop_all(self) -> list[Flight]:
        """The pod is killed: what it had not sent yet."""
        lost = [*(flight for flight, _ in self._batch), *self._queue]
        self._batch.clear()
        self._queue.clear()
        self.requests = 0
        self.waiting_tokens = 0
        return list(dict.fromkeys(lost))

    def _start_step(self) -> None:
        budget = self._step_tokens
        theta0, theta1, theta2 = self._theta
        seconds, tokens, attended = theta0, 0, 0.0
        queue, batch = self._queue, self._batch
        while queue and budget > 0:
            flight = queue[0]
            left = flight.context - flight.computed
            chunk = left if left <= budget else budget
            batch.append((flight, chunk))
            seconds += chunk * (theta1 + theta2 * (flight.computed + chunk / 2))
            attended += chunk * (flight.computed + chunk / 2)
            tokens += chunk
            budget -= chunk
            if chunk == left:
                queue.popleft()
            else:
                break
        self.iterations.append(Iteration(0, 0, tokens, seconds, attended))
        self.iterations_total += 1
        self.busy_s += seconds
        self._batch_tokens = tokens
        self._step_ends_s = self.events.now + seconds
        self.events.at(self.events.now + seconds, self._at_end)

    def _end_step(self, _: None) -> None:
        if self.gone_s >= 0:
            return
        batch, self._batch = self._batch, []
        finished = []
        for flight, chunk in batch:
            flight.computed += chunk
            self.waiting_tokens -= chunk
            self.prompt_tokens += chunk
            if flight.computed == flight.context:
                finished.append(flight)
                if self.cache is not None and flight.blocks:
                    self.cache.store(flight.blocks)
        if self._queue:
            self._start_step()
        for flight in finished:
            self._done(flight)
        if self._batch:
            self._stepped(self)
        else:
            self._idled(self)
