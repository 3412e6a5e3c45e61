"""A fleet told in a few words: load comes, pods start after a while, signals tell or fail to; the law decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import msgspec
from tandem_operator.scaling.decide import decide
from tandem_operator.scaling.decision import Decision, Record, Targets
from tandem_operator.scaling.observation import (
    SLACK_EDGES_S,
    ClassCounters,
    Observation,
    Pod,
    PodSignals,
    QueueNow,
    Role,
    RouterSignals,
)
from tandem_operator.scaling.replay import record
from tandem_operator.scaling.settings import Objective, PoolSettings, Settings
from tandem_operator.scaling.state import State
from tandem_runtime.contracts.coefficients import SCHEMA, Coefficients, Decode, Link, Prefill

LARGE = Coefficients(
    schema=SCHEMA,
    prefill=Prefill(theta0_s=0.005, theta1_s=3.2e-5, theta2_s=1.2e-9),
    decode=Decode(phi0_s=0.012, phi1_s=4.5e-5, phi2_s=3e-8),
    link=Link(setup_s=0.002, bytes_per_s=2e11),
    kv_bytes_per_token=327_680,
    kv_tokens=600_000,
    max_sequences=256,
    load_s=110.0,
)
"""About a 70B model in FP8 on four H100: a prompt of 1,000 tokens in 38 ms, 256 sequences in 32 ms a step."""


def settings(
    coefficients: Coefficients = LARGE,
    prefill: dict[str, object] | None = None,
    decode: dict[str, object] | None = None,
    **values: object,
) -> Settings:
    """One class with TTFT 2 s and TPOT 50 ms; `prefill` and `decode` are fields of the pools."""
    pools = {
        "prefill": PoolSettings(coefficients=coefficients, **(prefill or {})),  # type: ignore[arg-type]
        "decode": PoolSettings(coefficients=coefficients, **(decode or {})),  # type: ignore[arg-type]
    }
    return Settings(**{"objectives": (Objective(),), **pools, **values})  # type: ignore[arg-type]


@dataclass
class Story:
    """State of the play. Times are seconds; `decisions` holds all that was decided, `records` can be replayed."""

    settings: Settings = field(default_factory=settings)
    prefill: int = 1
    decode: int = 1
    startup_s: float = 110.0
    tick_s: float = 2.0
    seed: int | None = None
    """Arrivals by chance from this seed; None: even ones."""
    now: float = 1000.0
    keep_records: bool = False

    def __post_init__(self) -> None:
        self.state = State()
        self.counts = {"interactive": ClassCounters()}
        self.decisions: list[Decision] = []
        self.records: list[Record] = []
        self.router_tells = True
        self.pods_tell = True
        self.garble: Callable[[Observation], Observation] = lambda observation: observation
        self._random = Random(self.seed)
        self._owed = 0.0
        self._made = 0
        self._pods: list[Pod] = []
        for role, count in (("prefill", self.prefill), ("decode", self.decode)):
            for _ in range(count):
                self._pods.append(self._pod(role, self.now - 500, ready=True))

    @property
    def targets(self) -> Targets:
        """The last answer."""
        return self.decisions[-1].targets

    @property
    def because(self) -> str:
        """What stood in the way of the last answer."""
        return "; ".join(self.decisions[-1].explanation.suppressed_by)

    def sizes(self) -> list[tuple[int, int]]:
        """Every answer, in order."""
        return [(decision.targets.prefill, decision.targets.decode) for decision in self.decisions]

    def run(
        self,
        seconds: float,
        rate: float,
        prompt: int = 1000,
        output: int = 200,
        queue: QueueNow | None = None,
        running: int = 0,
    ) -> Story:
        """Load for a while. `running`: sequences in each decode pod."""
        for _ in range(round(seconds / self.tick_s)):
            self.now += self.tick_s
            self._arrive(rate, prompt, output)
            self._start()
            self._decide(queue or QueueNow(), running, prompt)
        return self

    def _arrive(self, rate: float, prompt: int, output: int) -> None:
        mean = rate * self.tick_s
        if self.seed is None:
            self._owed += mean
            count = int(self._owed)
            self._owed -= count
        else:
            count = max(round(self._random.gauss(mean, math.sqrt(mean))), 0) if mean > 20 else self._poisson(mean)
        old = self.counts["interactive"]
        self.counts["interactive"] = ClassCounters(
            arrivals=old.arrivals + count,
            prompt_tokens=old.prompt_tokens + count * prompt,
            prompt_tokens_squared=old.prompt_tokens_squared + count * 1.5 * prompt**2,
            completed=old.completed + count,
            output_tokens=old.output_tokens + count * output,
            output_tokens_squared=old.output_tokens_squared + count * 1.5 * output**2,
            met=old.met + count,
        )

    def _poisson(self, mean: float) -> int:
        count, left = 0, math.exp(-mean)
        product = self._random.random()
        while product > left:
            count += 1
            product *= self._random.random()
        return count

    def _start(self) -> None:
        self._pods = [
            msgspec.structs.replace(pod, ready_since=pod.created + self.startup_s)
            if pod.ready_since is None and self.now >= pod.created + self.startup_s
            else pod
            for pod in self._pods
        ]

    def _pod(self, role: Role, created: float, ready: bool) -> Pod:
        self._made += 1
        return Pod(
            name=f"{role}-{self._made}",
            role=role,
            created=created,
            scheduled=created,
            ready_since=created + 100 if ready else None,
        )

    def observe(self, queue: QueueNow, running: int, prompt: int) -> Observation:
        """What a reader of signals would hand over now."""
        router = RouterSignals(router="r0", incarnation="a", at=self.now, classes=dict(self.counts), queue=queue)
        pods = tuple(
            msgspec.structs.replace(pod, signals=self._signals(pod, running, prompt))
            if self.pods_tell and pod.ready_since is not None
            else pod
            for pod in self._pods
        )
        return Observation(routers=(router,) if self.router_tells else (), pods=pods, pods_at=self.now)

    def _signals(self, pod: Pod, running: int, prompt: int) -> PodSignals:
        here = running if pod.role == "decode" else 0
        return PodSignals(at=self.now, incarnation=pod.name, running=here, kv_used_tokens=here * prompt)

    def _decide(self, queue: QueueNow, running: int, prompt: int) -> None:
        observation = self.garble(self.observe(queue, running, prompt))
        before = self.state
        decision = decide(self.settings, before, observation, self.now)
        self.decisions.append(decision)
        self.state = decision.state
        if self.keep_records:
            self.records.append(record(self.settings, before, observation, self.now, "team/chat", decision))
        if self.settings.mode == "Active":
            self._follow("prefill", decision.targets.prefill)
            self._follow("decode", decision.targets.decode)

    def _follow(self, role: Role, size: int) -> None:
        """As the operator would: new pods start, the youngest go."""
        have = [pod for pod in self._pods if pod.role == role]
        for _ in range(size - len(have)):
            self._pods.append(self._pod(role, self.now, ready=False))
        for pod in sorted(have, key=lambda pod: pod.created)[size:]:
            self._pods.remove(pod)

    def edit(self, role: Role, size: int) -> None:
        """Somebody else sets the number of pods."""
        self._follow(role, size)


def waiting(requests: int, slack_s: float, prompt: int = 1000) -> QueueNow:
    """A queue of requests that all have this much time to their deadline."""
    bucket = sum(edge <= slack_s for edge in SLACK_EDGES_S)
    counts = tuple(requests if index == bucket else 0 for index in range(len(SLACK_EDGES_S) + 1))
    return QueueNow(
        requests=requests,
        tokens=requests * prompt,
        slack_requests=counts,
        slack_tokens=tuple(count * prompt for count in counts),
    )


def reversals(sizes: list[int]) -> int:
    """Changes of direction."""
    moves = [after - before for before, after in pairwise(sizes) if after != before]
    return sum(first * second < 0 for first, second in pairwise(moves))
