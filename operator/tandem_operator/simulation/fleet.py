"""The fleet: router, pods and links in one clock; a request goes router, prefill pod, link, decode pod."""

from __future__ import annotations

from collections.abc import Iterator

from tandem_runtime.contracts.goodput import meets

from tandem_operator.scaling.settings import Objective
from tandem_operator.simulation.counters import ClassCounts
from tandem_operator.simulation.decode import DecodePod
from tandem_operator.simulation.events import Events
from tandem_operator.simulation.flight import Flight
from tandem_operator.simulation.ledger import Ledger
from tandem_operator.simulation.link import send
from tandem_operator.simulation.policy import Discipline
from tandem_operator.simulation.prefill import PrefillPod
from tandem_operator.simulation.router import Router
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.supply import AnyPod, Pool, Supply
from tandem_operator.simulation.workload import Request


class Fleet:
    """Made ready to run: `events.run_until` moves it."""

    def __init__(self, scenario: Scenario, seed: int, discipline: Discipline, convertible: bool) -> None:
        self.events = Events()
        self.ledger = Ledger(meets)
        self.counts: dict[str, ClassCounts] = {}
        self.converted = 0
        self._inside = 0
        self.lost_at_grace = 0
        self._scenario = scenario
        self._fleet = scenario.fleet
        self._objectives = {objective.name: objective for objective in scenario.settings.objectives}
        self._default = scenario.settings.objectives[0]
        self._solo_factor = scenario.ttft_solo_factor
        self._timeout_s = scenario.fleet.request_timeout_s
        self._speed = scenario.fleet.prefill
        self._stream: Iterator[Request] = scenario.requests(seed)
        self.prefill = Pool("prefill", self._make_prefill)
        self.decode = Pool("decode", self._make_decode)
        self.router = Router(self, scenario, discipline, convertible)
        self.gpus = (scenario.settings.prefill.gpus, scenario.settings.decode.gpus)
        self.supply = Supply(
            self.events,
            (self.prefill, self.decode),
            self._fleet.startup,
            self._fleet.gpus,
            self._fleet.grace_s,
            self._fleet.flip_s,
            seed,
            self.router.pods_changed,
            self._killed,
        )
        self.supply.begin((scenario.prefill_start, scenario.decode_start))
        self.router.pods_changed()
        self._at_arrival = self._arrive
        self._at_receipt = self._received
        """Bound once, as every request asks for them."""
        self._next_arrival()

    def settle(self) -> None:
        """End of the run: what is still there is billed, and first tokens count that came already."""
        self.supply.settle()
        for pod in self.decode.pods:
            assert isinstance(pod, DecodePod)
            for flight in pod.inside():
                if flight.first_s >= 0:
                    self.ledger.first_token(flight)

    def inside(self) -> int:
        """Requests that wait or are worked on."""
        return self._inside

    @property
    def preemptions(self) -> int:
        """Of all decode pods that are or were."""
        return self.supply.preemptions + sum(pod.preemptions for pod in self.decode.pods)

    # --- requests --------------------------------------------------------------------------------------------

    def objective(self, slo_class: str) -> Objective:
        """The first is the default."""
        return self._objectives.get(slo_class, self._default)

    def ttft_bound_s(self, objective: Objective, prompt_tokens: int) -> float:
        """Length-aware, as the scenario has it."""
        bound = objective.ttft_base_s + objective.ttft_per_thousand_tokens_s * prompt_tokens / 1000
        factor = self._solo_factor
        return max(bound, factor * self._speed.prefill_seconds(prompt_tokens)) if factor else bound

    def expects(self, flight: Flight) -> tuple[int, int]:
        """Priority of its class, and how long an answer the class's past lets expect."""
        counts = self.counts[flight.slo_class]
        mean = counts.output_tokens // counts.completed if counts.completed else 0
        return self.objective(flight.slo_class).priority, mean

    def _next_arrival(self) -> None:
        request = next(self._stream, None)
        if request is not None:
            self.events.at(request.arrived_s, self._at_arrival, request)

    def _arrive(self, request: Request) -> None:
        objective = self.objective(request.slo_class)
        bound_s = self.ttft_bound_s(objective, request.prompt_tokens)
        flight = Flight(len(self.ledger), request, bound_s, objective.tpot_s, self._timeout_s)
        flight.slo_class = objective.name
        self.ledger.arrive(flight)
        counts = self.counts.get(objective.name)
        if counts is None:
            counts = self.counts[objective.name] = ClassCounts()
        counts.arrive(flight)
        self._inside += 1
        self._next_arrival()
        self.router.submit(flight)

    def shed(self, flight: Flight) -> None:
        """The router refused it."""
        self._inside -= 1
        self.ledger.shed(flight)
        self.counts[flight.slo_class].shed += 1

    def expire(self, flight: Flight) -> None:
        """Its time was up in the queue."""
        self._inside -= 1
        self.ledger.fail(flight)
        self.counts[flight.slo_class].failed += 1

    def dispatch(self, flight: Flight, decode: DecodePod, prefill: PrefillPod | None) -> None:
        """The router has chosen."""
        decode.reserve(flight)
        if prefill is None:
            self.converted += 1
            decode.compute(flight)
        else:
            prefill.take(flight)
        self.ledger.cached(flight)
        self.counts[flight.slo_class].cached_tokens += flight.cached

    def _prefilled(self, flight: Flight) -> None:
        prefill, decode = flight.prefill, flight.decode
        assert prefill is not None
        assert decode is not None
        size = flight.context * self._speed.kv_bytes_per_token
        arrives_s = send(self._speed.link, prefill.port, decode.port, size, self.events.now)
        prefill.kv_bytes += size
        self.events.at(arrives_s, self._at_receipt, (flight, prefill, decode, size))

    def _received(self, what: tuple[Flight, PrefillPod, DecodePod, int]) -> None:
        flight, prefill, decode, size = what
        prefill.release(flight)
        self.supply.check_drained(prefill)
        if decode.gone_s >= 0:
            self._again(flight)
            return
        decode.kv_bytes += size
        decode.join(flight)

    def _finished(self, flight: Flight) -> None:
        self._inside -= 1
        met = self.ledger.finish(flight, self.events.now)
        self.counts[flight.slo_class].finish(flight, met)
        assert flight.decode is not None
        self.router.changed(flight.decode)
        self.supply.check_drained(flight.decode)

    def _again(self, flight: Flight) -> None:
        """Its pod went."""
        flight.restart()
        self.router.submit(flight, resumed=True)

    # --- pods ------------------------------------------------------------------------------------------------

    def _make_prefill(self, name: str) -> AnyPod:
        block = self._scenario.workload.block_tokens
        return PrefillPod(
            name,
            self.events,
            self.gpus[0],
            self._fleet.prefill,
            self._fleet.step_tokens,
            self._fleet.prefix_cache_tokens // block if block else 0,
            block,
            self._prefilled,
            self.router.stepped,
            self.router.idled,
        )

    def _make_decode(self, name: str) -> AnyPod:
        is_both = self._fleet.aggregated
        return DecodePod(
            name,
            self.events,
            self.gpus[1],
            self._fleet.decode,
            self._fleet.step_tokens if is_both else self._fleet.convert_tokens,
            self._finished,
            self.router.stepped,
            is_both,
        )

    def _killed(self, pod: AnyPod) -> None:
        for flight in pod.drop_all():
            self.lost_at_grace += 1
            if isinstance(pod, PrefillPod) and flight.decode is not None:
                flight.decode.cancel(flight)
                self.router.changed(flight.decode)
                self.supply.check_drained(flight.decode)
            self._again(flight)
