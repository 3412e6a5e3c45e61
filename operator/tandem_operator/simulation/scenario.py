"""A scenario: what clients send, what the fleet is made of, how well it is seen, and which part counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.scaling.observation import Warmth
from tandem_operator.scaling.settings import Settings
from tandem_operator.simulation.workload import Request, Workload


@dataclass(frozen=True, slots=True)
class Startup:
    """Seconds from a pod's creation to its readiness: wait for a node, image, weights, warm-up. Medians, log-normal."""

    node_s: float = 5.0
    image_s: float = 15.0
    weights_s: float = 75.0
    warmup_s: float = 15.0
    warmth: Warmth = "cold"
    """What such a start is called in an Observation."""
    spread: float = 0.1
    """Sigma of the logarithm of each part; 0: always the median."""

    @property
    def median_s(self) -> float:
        """Of the whole."""
        return self.node_s + self.image_s + self.weights_s + self.warmup_s


@dataclass(frozen=True, slots=True)
class Metrics:
    """How a scraper sees the fleet."""

    scrape_s: float = 1.0
    delay_s: float = 0.2
    """From the moment that a source describes to the moment that the policy can see it."""
    loss: float = 0.0
    """Share of scrapes that fail, each source by itself."""
    nan: float = 0.0
    """Share of scrapes that come with impossible values."""
    resets: float = 0.0
    """Share of scrapes before which a source's counters start anew (a new incarnation)."""
    outages: tuple[tuple[float, float], ...] = ()
    """From, to: nothing answers, Kubernetes included it still does."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What stands behind the deployment."""

    prefill: Coefficients
    """The truth; what the policy believes stands in Settings."""
    decode: Coefficients
    startup: Startup = Startup()
    step_tokens: int = 8192
    """Prompt tokens in one step of a prefill pod, max_num_batched_tokens."""
    convert_tokens: int = 512
    """Prompt tokens that a convertible decode pod adds to one step."""
    aggregated: bool = False
    """Decode pods compute all prompts themselves, as engines do that are not taken apart; start with no prefill pod."""
    grace_s: float = 600.0
    """A draining pod is killed then."""
    gpus: int | None = None
    """Devices that the cluster has for this deployment. None: as many as asked for."""
    flip_s: float | None = None
    """In which a drained pod takes the other role on its devices. None: a pod has one role for life."""
    request_timeout_s: float = 600.0
    max_waiting: int = 1_000_000
    """Requests in the router's queue; more are shed."""
    prefix_cache_tokens: int = 0
    """KV that a prefill pod keeps for prefixes; 0: no prefix reuse."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything but the policy and the seed. Times are seconds since the start."""

    name: str
    describe: str
    workload: Workload
    settings: Settings
    fleet: Fleet
    metrics: Metrics = Metrics()
    ttft_solo_factor: float = 0.0
    """A prompt's first token is in time after so many times its prefill alone, if the class's bound is shorter."""
    prefill_start: int = 3
    decode_start: int = 2
    """Pods that are ready at time 0."""
    report_from_s: float = 0.0
    """What arrived before is for tuning and is not reported."""
    end_s: float = 0.0
    """End of the run; what is still inside then is in flight. 0: the workload's end."""
    steps_s: tuple[float, ...] = ()
    """Jumps of the load, from which recovery is measured."""
    blind_s: tuple[tuple[float, float], ...] = field(default=())
    """Times in which removals are counted apart: outages."""

    @property
    def until_s(self) -> float:
        """End of the run."""
        return self.end_s or self.workload.end_s

    def requests(self, seed: int) -> Iterator[Request]:
        """The stream of this seed."""
        return self.workload.requests(seed)
