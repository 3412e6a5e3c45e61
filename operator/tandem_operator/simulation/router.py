"""The router of the fleet: the real one's queue, choice and dispatch, called with virtual time and simulated pods."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING

from tandem_runtime.policy.choice import NOTHING_CACHED, Pair, choose
from tandem_runtime.policy.dispatch import next_dispatch, next_look
from tandem_runtime.policy.fleet import ChoiceLaw
from tandem_runtime.policy.fleet import Fleet as KnownFleet
from tandem_runtime.policy.pods import PodSnapshot
from tandem_runtime.policy.queue import QueueFull, WaitingQueue
from tandem_runtime.policy.waiting import QueueLaw, QueueLimits, Waiting

from tandem_operator.simulation.decode import DecodePod
from tandem_operator.simulation.flight import Flight
from tandem_operator.simulation.policy import Discipline
from tandem_operator.simulation.prefill import PrefillPod
from tandem_operator.simulation.supply import AnyPod

if TYPE_CHECKING:
    from tandem_operator.simulation.fleet import Fleet
    from tandem_operator.simulation.scenario import Scenario

REVISION = "simulated"
MAX_TOKENS = 1 << 60
LOOK_AGAIN_S = 1e-3
"""Two looks on a timer are at least that far apart: a promise of floats must not stop the clock."""


EXPIRE_EVERY_S = 0.05
"""The real one's timer is no finer."""


class Router:
    """Tells the fleet what to dispatch, shed and expire. Pods are told to it when something about them changed."""

    def __init__(self, fleet: Fleet, scenario: Scenario, discipline: Discipline, convertible: bool) -> None:
        self._fleet = fleet
        self._events = fleet.events
        self.convertible = convertible
        timeout_s = scenario.fleet.request_timeout_s
        limits = QueueLimits(
            max_requests=scenario.fleet.max_waiting, max_tokens=MAX_TOKENS, wait_for_pods_seconds=timeout_s
        )
        sheds = scenario.settings.sheds_late
        self.queue = WaitingQueue(limits, QueueLaw(order=discipline, sheds_late=sheds))
        strictest = min(objective.tpot_s for objective in scenario.settings.objectives)
        law = ChoiceLaw(tpot_seconds=strictest, convertible=convertible, convert_tokens=scenario.fleet.convert_tokens)
        self.known = KnownFleet(law)
        self._flights: dict[str, Flight] = {}
        self._pods: dict[str, AnyPod] = {}
        self._dirty: dict[AnyPod, None] = {}
        self._no_pod_since: float | None = 0.0
        self._look_s = inf
        self._pumping = False
        self._expire_s = 0.0

    def __len__(self) -> int:
        return len(self._flights)

    def submit(self, flight: Flight, resumed: bool = False) -> None:
        """A new request, or one whose pod went."""
        now = self._events.now
        alone = not self._flights and not self._pumping
        if alone and self._dispatch_at_once(self._entry(flight, resumed), flight, now):
            return
        seconds = self.known.service_seconds(flight.context, flight.hinted_cached)
        entry = self._entry(flight, resumed, seconds)
        try:
            self.queue.add(entry, now, pods=self._no_pod_since is None)
        except QueueFull:
            self._fleet.shed(flight)
            return
        waited = bool(self._flights)
        self._flights[flight.id] = flight
        if not waited or self._dirty or now >= min(self._look_s, self._expire_s + EXPIRE_EVERY_S):
            self.pump()  # else nothing has changed since the last look, and that left others waiting

    def _entry(self, flight: Flight, resumed: bool, service_seconds: float = 0.0) -> Waiting:
        priority, expected = self._fleet.expects(flight)
        return Waiting(
            id=flight.id,
            arrived=flight.arrived_s,
            timeout_at=flight.timeout_s,
            tokens=flight.context,
            objective_at=flight.deadline_s,
            priority=priority,
            service_seconds=service_seconds,
            request_class=flight.slo_class,
            cached_tokens=flight.hinted_cached,
            output_tokens=expected,
            tpot_seconds=flight.tpot_s,
            resumed=resumed,
            streaming=flight.first_s >= 0,
        )

    def _dispatch_at_once(self, entry: Waiting, flight: Flight, now: float) -> bool:
        """With nobody else in the queue the queue has no say: the choice is all there is."""
        if self.known.reserved is not None:
            return False
        self._tell(now)
        found = choose(self.known, entry, now, self._cached(flight) if flight.blocks else NOTHING_CACHED)
        if not isinstance(found, Pair):
            return False
        self._dispatch(flight, found)
        return True

    def changed(self, pod: AnyPod) -> None:
        """Its load is another."""
        self._dirty[pod] = None

    def stepped(self, pod: AnyPod) -> None:
        """It may take more now."""
        self._dirty[pod] = None
        if self._flights:
            self.pump()

    def idled(self, pod: AnyPod) -> None:
        """It has done what it had, when it was expected to."""
        if self._flights:
            self._dirty[pod] = None
            self.pump()

    def pods_changed(self) -> None:
        """Pods came or went."""
        fleet, now = self._fleet, self._events.now
        pods = {pod.name: pod for pool in (fleet.prefill, fleet.decode) for pod in pool.pods if pod.takes_work}
        for name in self._pods.keys() - pods.keys():
            self.known.drop(name)
        self._dirty.update(dict.fromkeys(pod for name, pod in pods.items() if name not in self._pods))
        self._pods = pods
        if any(pod.role == "decode" for pod in pods.values()):
            self._no_pod_since = None
        elif self._no_pod_since is None:
            self._no_pod_since = now
        self.pump()

    def pump(self) -> None:
        """Sends off what can go."""
        if not self._flights or self._pumping:
            return
        self._pumping = True
        now, queue = self._events.now, self.queue
        if now >= self._expire_s:
            self._expire(now)
        while self._flights:
            self._tell(now)
            found = next_dispatch(queue, self.known, now, self._cached_for)
            if found is None:
                break
            flight = self._flights.pop(found.entry.id)
            if found.pair is None:
                self._fleet.shed(flight)
                continue
            self._dispatch(flight, found.pair)
        self._pumping = False
        if self._flights:
            self._set_timer(now)

    def _dispatch(self, flight: Flight, pair: Pair) -> None:
        decode = self._pods[pair.decode.incarnation]
        prefill = self._pods[pair.prefill.incarnation] if pair.prefill is not None else None
        assert isinstance(decode, DecodePod)
        assert not isinstance(prefill, DecodePod)
        self._dirty[decode] = None
        if prefill is not None:
            self._dirty[prefill] = None
        self._fleet.dispatch(flight, decode, prefill)

    def _expire(self, now: float) -> None:
        self._expire_s = now + EXPIRE_EVERY_S
        for entry, why in self.queue.expire(now, self._no_pod_since):
            flight = self._flights.pop(entry.id)
            if why == "late":
                self._fleet.shed(flight)
            else:
                self._fleet.expire(flight)

    def _set_timer(self, now: float) -> None:
        look_s = next_look(self.queue, self.known, now, self._no_pod_since)
        if look_s is not None and look_s < self._look_s:
            self._look_s = max(look_s, now + LOOK_AGAIN_S)
            self._events.at(self._look_s, self._look)

    def _look(self, _: None) -> None:
        if self._events.now >= self._look_s:
            self._look_s = inf
            self.pump()

    def _tell(self, now: float) -> None:
        if self._dirty:
            for pod in self._dirty:
                if pod.ready_s >= 0 > pod.draining_s:
                    self.known.put(_snapshot(pod, now), now)
            self._dirty.clear()

    def _cached_for(self, entry: Waiting) -> Mapping[str, int]:
        flight = self._flights[entry.id]
        return self._cached(flight) if flight.blocks else NOTHING_CACHED

    def _cached(self, flight: Flight) -> Mapping[str, int]:
        pods = [pod for pod in self._pods.values() if isinstance(pod, PrefillPod)]
        return {pod.name: tokens for pod in pods if (tokens := pod.cached_tokens(flight))}


def _snapshot(pod: AnyPod, now: float) -> PodSnapshot:
    """Pods tell how fast they are, so the router knows the truth even where the policy starts from a wrong prior."""
    if isinstance(pod, PrefillPod):
        return PodSnapshot(
            pod=pod.name,
            role="prefill",
            revision=REVISION,
            incarnation=pod.name,
            ready=True,
            running=pod.requests,
            waiting_tokens=pod.waiting_tokens,
            busy_until=pod.busy_until(now),
            coefficients=pod.coefficients,
        )
    return PodSnapshot(
        pod=pod.name,
        role="both" if pod.is_both else "decode",
        revision=REVISION,
        incarnation=pod.name,
        ready=True,
        running=pod.requests,
        waiting_tokens=pod.prompt_tokens_waiting,
        kv_used_tokens=pod.kv_used(now),
        kv_total_tokens=pod.kv_total,
        max_sequences=pod.max_sequences,
        coefficients=pod.coefficients,
    )
