"""Small fleets for tests: round coefficients, so that what must come out can be worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tandem_operator.scaling.decision import Decision, Explanation, Targets
from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.settings import Objective, PoolSettings, Settings
from tandem_operator.simulation.policy import Discipline
from tandem_operator.simulation.scenario import Fleet, Metrics, Scenario, Startup
from tandem_operator.simulation.workload import Request, Workload
from tandem_runtime.contracts.coefficients import SCHEMA, Coefficients, Decode, Link, Prefill


def coefficients(
    theta: tuple[float, float, float] = (0.0, 1e-4, 0.0),
    phi: tuple[float, float, float] = (0.01, 0.0, 0.0),
    kv_tokens: int = 100_000,
    max_sequences: int = 64,
) -> Coefficients:
    """A prompt of 10,000 tokens takes a second, a step a hundredth, the link nothing."""
    return Coefficients(
        schema=SCHEMA,
        prefill=Prefill(*theta),
        decode=Decode(*phi),
        link=Link(setup_s=0.0, bytes_per_s=1e15),
        kv_bytes_per_token=1,
        kv_tokens=kv_tokens,
        max_sequences=max_sequences,
        load_s=1.0,
    )


@dataclass(frozen=True)
class Given:
    """A workload written down."""

    given: tuple[Request, ...]
    end_s: float
    block_tokens: int = 0

    def requests(self, seed: int) -> Iterator[Request]:
        """Fresh copies."""
        for request in self.given:
            yield Request(
                request.arrived_s, request.prompt_tokens, request.output_tokens, request.slo_class, request.blocks
            )


@dataclass(frozen=True)
class Planned:
    """A policy that does what was planned: targets from a time on."""

    plan: tuple[tuple[float, int, int], ...] = ()
    period_s: float = 1.0
    discipline: Discipline = "deadline"
    convertible: bool = False
    name: str = "planned"

    def settings(self, given: Settings) -> Settings:
        """As given."""
        return given

    def initial(self, settings: Settings) -> int:
        """Decisions so far."""
        return 0

    def decide(self, settings: Settings, state: Any, observation: Observation, now: float) -> Decision:
        """Until the first time of the plan the pools stay as they are."""
        alive = {role: sum(p.role == role and p.draining_since is None for p in observation.pods) for role in ROLES}
        wanted = (alive["prefill"], alive["decode"])
        for start, prefill, decode in self.plan:
            if now >= start:
                wanted = (prefill, decode)
        return Decision(Targets(*wanted), state + 1, Explanation(summary="planned"))


ROLES = ("prefill", "decode")


def scenario(workload: Workload, start: tuple[int, int] = (1, 1), **changes: Any) -> Scenario:
    """`changes` are fields of Scenario, or `truth`, `startup`, `fleet` (fields of Fleet), `ttft_s`, `tpot_s`."""
    truth = changes.pop("truth", None) or coefficients()
    objective = Objective(ttft_base_s=changes.pop("ttft_s", 2.0), tpot_s=changes.pop("tpot_s", 10.0))
    pool = PoolSettings(coefficients=changes.pop("believed", truth))
    startup = changes.pop("startup", Startup(0.0, 0.0, 10.0, 0.0, spread=0.0))
    fleet = Fleet(prefill=truth, decode=truth, startup=startup, **changes.pop("fleet", {}))
    return Scenario(
        name="test",
        describe="test",
        workload=workload,
        settings=Settings(prefill=pool, decode=pool, objectives=(objective,)),
        fleet=fleet,
        metrics=changes.pop("metrics", Metrics()),
        prefill_start=start[0],
        decode_start=start[1],
        **changes,
    )
