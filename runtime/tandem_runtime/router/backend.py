"""Queue and proxy: holds requests until a pair of pods takes them, and carries them over when a pod goes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tandem_runtime.contracts.classes import Classes
from tandem_runtime.contracts.pod_protocol import Cancel, Delta, Failed, PodHello, Reason, Submit
from tandem_runtime.openai.backend import LaneSource, Sink
from tandem_runtime.policy.choice import Hold, Pair
from tandem_runtime.policy.dispatch import next_dispatch, next_look
from tandem_runtime.policy.pods import HEADROOM_TOKENS
from tandem_runtime.policy.queue import QueueFull, WaitingQueue
from tandem_runtime.policy.waiting import Waiting
from tandem_runtime.router.backlog import Backlog
from tandem_runtime.router.board import PodBoard
from tandem_runtime.router.connections import Connections
from tandem_runtime.router.counters import Counters
from tandem_runtime.router.draining import begin_drain
from tandem_runtime.router.drains import Cause, Drains
from tandem_runtime.router.flight import Flight
from tandem_runtime.router.link import PodLink
from tandem_runtime.router.settings import RouterSettings

TURNED_AWAY = frozenset({Reason.OVERLOADED, Reason.DRAINING})
"""Reasons of pods that did not begin: the request goes back to the queue, as long as its timeout allows."""
NO_FAILURES = TURNED_AWAY | {"moved"}
"""Nor is it the request's fault that somebody drains its pod."""


class RouterBackend:
    """The front's Backend. Runs on one event loop; `clock` is monotonic seconds."""

    def __init__(
        self, settings: RouterSettings, counters: Counters | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.queue = WaitingQueue(settings.limits, settings.queue)
        self.counters = counters or Counters()
        self.classes = Classes()
        self.board = PodBoard(settings.choice, clock)
        self.links = self.board.links
        self.fleet = self.board.fleet
        self.snapshots = self.board.snapshots
        self.retries: Counter[str] = Counter()
        """By kind: what made requests move to another pod."""
        self.ways: Counter[str] = Counter()
        """By who computes the prompt: dispatches."""
        self.drains = Drains()
        self._settings = settings
        self._clock = clock
        self._flights: dict[str, Flight] = {}
        self._details: dict[str, dict[str, object]] = {}
        self._no_pod_since: float | None = clock()
        self._pod_context_tokens: int | None = None
        self._wake: asyncio.TimerHandle | None = None
        self._pump_scheduled = False
        self._backlog = Backlog(clock())
        self.connections = Connections(self.links, settings, self, self._backlog)

    # --- the front's side -------------------------------------------------------------------------------------

    @property
    def max_context_tokens(self) -> int | None:
        """The smaller of the router's setting and what the pods said."""
        known = [tokens for tokens in (self._settings.max_context_tokens, self._pod_context_tokens) if tokens]
        return min(known, default=None)

    def submit(self, request: Submit, sink: Sink, lane: LaneSource | None = None) -> None:
        """Deltas in order over all attempts. Never raises for what pods do: a Failed says it."""
        now = self._clock()
        slo = self.classes.find(request.request_class) or self.classes.default
        prompt_tokens = len(request.prompt_ids)
        blocks = self.board.blocks(request, self._settings.token().encode())
        cached_tokens = min(max(self.board.cached_tokens(blocks).values(), default=0), prompt_tokens - 1)
        self.counters.arrive(request.id, slo, prompt_tokens, cached_tokens)
        flight = Flight(
            request,
            now - request.spent_ms / 1000,
            now + request.remaining_ms / 1000,
            slo,
            self.fleet.service_seconds(prompt_tokens, cached_tokens),
            self.counters.expected_output_tokens(slo.name, request.sampling.max_tokens),
            blocks,
            cached_tokens,
            sink,
            lane,
        )
        try:
            self.queue.add(flight.waiting(), now, pods=self._no_pod_since is None)
        except QueueFull as full:
            flight.fail(full.reason, str(full), full.retry_after_seconds)
            return
        self._flights[request.id] = flight
        self._pump()

    def cancel(self, request_id: str) -> None:
        """Idempotent; tells the pod when one still works on it."""
        flight = self._flights.pop(request_id, None)
        if flight is None:
            return
        self._details[request_id] = flight.details()
        if self.drains.records:
            self.drains.ended(request_id, flight.outcome, self._clock())
        self.queue.remove(request_id)
        link = flight.link
        if link is not None and link.flights.get(request_id) is flight:
            link.send(Cancel(request_id, flight.attempt))
        self._release(flight)
        self._schedule_pump()

    def take_details(self, request_id: str) -> dict[str, object]:
        """Pods, retries and time in the queue of a request that ended; can be asked once."""
        return self._details.pop(request_id, {})

    # --- pods -------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Ends all connections."""
        await self.connections.close()
        if self._wake is not None:
            self._wake.cancel()

    def accepts(self, link: PodLink, hello: PodHello) -> str:
        """Same revision, and not the same pod under a second address."""
        if hello.revision != self._settings.revision:
            return f"pod {hello.pod} has revision {hello.revision}; this router serves {self._settings.revision}"
        for other in self.links.values():
            if other is not link and other.hello is not None and other.hello.incarnation == hello.incarnation:
                return f"pod {hello.pod} is connected already, at {other.address.host}:{other.address.port}"
        return ""

    def link_changed(self, link: PodLink) -> None:
        """Something may have become possible."""
        if link.hello is not None and link.hello.max_context_tokens:
            contexts = [other.hello.max_context_tokens for other in self.links.values() if other.hello is not None]
            self._pod_context_tokens = min(contexts)
            self.board.note_start(link)
            if link.state is not None and link.state.draining:
                cause: Cause = "flipped" if link.state.becoming else "terminated"
                begin_drain(self.drains, link, link.hello, cause, self._clock())
        self.board.touch(link)
        self._schedule_pump()

    def move_all(self, link: PodLink, why: str) -> None:
        """What the pod decodes goes on elsewhere; it is told to stop."""
        for flight in list(link.flights.values()):
            link.send(Cancel(flight.submit.id, flight.attempt))
            self._retry(flight, "moved", why)

    def link_lost(self, link: PodLink, reason: str) -> None:
        """All that ran there goes on elsewhere; no failure where a pod parts to be another one."""
        kind = "moved" if link.state is not None and link.state.becoming else "pod_lost"
        for flight in list(link.flights.values()):
            self._retry(flight, kind, f"{link.name()} {reason}")

    def step_arrived(self, link: PodLink, deltas: Sequence[Delta]) -> None:
        """Passes on what clients miss next. A delta amid a stream, by far the most frequent, takes the short way."""
        flights = link.flights
        for delta in deltas:
            flight = flights.get(delta.id)
            if flight is None or flight.attempt != delta.attempt:
                continue  # of an attempt that was given up
            if flight.lane_number and link.lanes is not None:
                link.lanes.leave(flight)
            emitted = flight.emitted_ids
            if delta.finish_reason is None and flight.prefill_link is None and delta.output_index == len(emitted):
                emitted += delta.ids
                flight.sink(delta)
                if link.lanes is not None and flight.lane is not None:
                    link.lanes.offer(flight)
            else:
                self._take_delta(link, flight, delta)

    def _take_delta(self, link: PodLink, flight: Flight, delta: Delta) -> None:
        if delta.output_index != len(flight.emitted_ids):
            link.send(Cancel(delta.id, delta.attempt))
            expected = len(flight.emitted_ids)
            self._retry(flight, "out_of_order", f"{link.name()} sent token {delta.output_index} instead of {expected}")
            return
        if delta.finish_reason == "cancelled":  # not by us
            self._retry(flight, "cancelled", f"{link.name()} cancelled it")
            return
        flight.emitted_ids += delta.ids
        if flight.prefill_link is not None:
            self._count_prefilled(flight)
        if delta.finish_reason is not None:
            flight.outcome = "completed"
            self._release(flight)
            self._schedule_pump()
        flight.sink(delta)

    def failure_arrived(self, link: PodLink, failed: Failed) -> None:
        """Another pod, where that may help."""
        flight = link.flights.get(failed.id)
        if flight is None or flight.attempt != failed.attempt:
            return
        if failed.retryable:
            self._retry(flight, failed.reason, f"{link.name()}: {failed.message}")
        else:
            flight.outcome = "lost"
            self._release(flight)
            flight.sink(failed)
            self._schedule_pump()

    # --- laws ---------------------------------------------------------------------------------------------------

    def _retry(self, flight: Flight, kind: str, why: str) -> None:
        link = flight.link
        if link is not None and link.hello is not None:
            flight.failed_at |= {link.hello.incarnation}
        if self.drains.records:
            self._note_move(flight)
        self._release(flight)
        flight.attempt += 1
        flight.retries.append(why)
        self.retries[kind] += 1
        flight.failures += kind not in NO_FAILURES
        if flight.failures >= self._settings.max_attempts:
            flight.fail("attempts_exhausted", f"{flight.failures} attempts failed; the last: {why}")
            return
        if len(flight.emitted_ids) >= flight.submit.sampling.max_tokens:
            # The pod went between its last token and its goodbye: nothing is left to compute.
            end = len(flight.emitted_ids)
            flight.outcome = "completed"
            flight.sink(Delta(flight.submit.id, flight.attempt, end, [], "", finish_reason="length"))
            return
        now = self._clock()
        self.queue.add(flight.waiting(avoid_until=now + self._settings.retry_pause_seconds), now)
        self._schedule_pump()

    def _pump(self) -> None:
        """Sends off what can go, in the queue's order, and ends what waited too long."""
        self._pump_scheduled = False
        now = self._clock()
        self.board.refresh(now)
        if self.fleet.decodes:
            self._no_pod_since = None
        elif self._no_pod_since is None:
            self._no_pod_since = now
        for entry, why in self.queue.expire(now, self._no_pod_since):
            self._expire(self._flights[entry.id], why, now)
        while (found := next_dispatch(self.queue, self.fleet, now, self._cached)) is not None:
            if found.pair is not None:
                self._dispatch(self._flights[found.entry.id], found.pair, now)
                self.board.refresh(now)
            elif found.hold is not None:
                self._refuse_size(found.entry, found.hold)
        self._backlog.tell(self.queue, self.links.values(), now, self.fleet.reserved)
        self._set_timer(now)

    def _cached(self, entry: Waiting) -> Mapping[str, int]:
        return self.board.cached_tokens(self._flights[entry.id].blocks)

    def _dispatch(self, flight: Flight, pair: Pair, now: float) -> None:
        link = self.board.link_of(pair.decode)
        peer = None
        if pair.prefill is not None:
            flight.prefill_link = self.board.link_of(pair.prefill)
            flight.prefill_link.prefilling.start(flight.submit.id, flight.tokens(), pair.prefill, now)
            self.board.sent(flight.prefill_link, flight.blocks)
            peer = flight.prefill_link.prefill_peer()
        self.board.sent(link, flight.blocks)
        flight.way = pair.way
        flight.predicted_seconds = flight.predicted_seconds or pair.first_token_seconds
        self.ways[pair.way] += 1
        flight.link = link
        flight.pods.append(link.name() if peer is None else f"{peer.pod}+{link.name()}")
        flight.queued_seconds = flight.queued_seconds or now - flight.arrived
        link.flights[flight.submit.id] = flight
        link.dispatched(flight.tokens() + HEADROOM_TOKENS)
        try:
            link.send(flight.message(now, peer))
        except (ValueError, OverflowError) as error:  # a prompt beyond what one message takes; the others go on
            link.lease.unsent()
            self._release(flight)
            flight.fail(Reason.INVALID, f"the request cannot be sent to a pod: {error}")

    def _expire(self, flight: Flight, why: str, now: float) -> None:
        waited_seconds = now - flight.arrived
        if why == "timeout":
            flight.fail("timeout", f"the request timeout passed after {waited_seconds:.1f} s in the queue")
            return
        if why == "late":
            bound_seconds = flight.slo.ttft_bound_s(len(flight.submit.prompt_ids))
            text = f"too busy to answer within {bound_seconds:g} s, the objective of class {flight.slo.name}"
            retry_after_seconds = self.queue.retry_after_seconds(now)
            flight.fail("late", f"{text}; try again in {retry_after_seconds} s", retry_after_seconds)
            return
        problems = "; ".join(f"{link.name()}: {link.problem or 'not ready'}" for link in self.links.values())
        flight.fail(
            "no_pod",
            f"no decode pod became ready within {self._settings.limits.wait_for_pods_seconds:g} s "
            f"({problems or 'none is listed'}); try again later",
        )

    def _refuse_size(self, entry: Waiting, hold: Hold) -> None:
        self._flights[entry.id].fail(
            Reason.CONTEXT_LENGTH,
            f"the request needs KV room for {entry.tokens + HEADROOM_TOKENS} tokens; "
            f"the largest pod has {hold.largest_tokens}",
        )

    def _note_move(self, flight: Flight) -> None:
        for link in (flight.link, flight.prefill_link):
            if link is not None and link.hello is not None:
                self.drains.moved(flight.submit.id, link.hello.incarnation, self._clock())

    def _release(self, flight: Flight) -> None:
        self._count_prefilled(flight)
        if flight.link is not None:
            if flight.link.lanes is not None:
                flight.link.lanes.leave(flight)
            flight.link.flights.pop(flight.submit.id, None)
            self.board.touch(flight.link)
            flight.link = None

    def _count_prefilled(self, flight: Flight) -> None:
        if flight.prefill_link is not None:
            flight.prefill_link.prefilling.end(flight.submit.id, self._clock())
            if self.drains.records and flight.prefill_link.hello is not None:
                self.drains.completed(flight.submit.id, flight.prefill_link.hello.incarnation, self._clock())
            self.board.touch(flight.prefill_link)
            flight.prefill_link = None
            self._schedule_pump()

    def _schedule_pump(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _set_timer(self, now: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        when = next_look(self.queue, self.fleet, now, self._no_pod_since)
        if when is not None:
            self._wake = asyncio.get_running_loop().call_later(max(0.0, when - now) + 0.001, self._pump)
