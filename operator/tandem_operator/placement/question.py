"""From the spec of an InferenceDeployment to the problem that `choose` solves."""

from __future__ import annotations

from typing import Final

from tandem_runtime.contracts.durations import parse_duration

from tandem_operator.api.spec import InferenceDeploymentSpec, Pool, Slo
from tandem_operator.performance.shape import ModelShape
from tandem_operator.placement.problem import TORCH_ENGINE, Engine, Load, Objective, Offer, Problem, Wish

EMULATED_ENGINE: Final = Engine(name="executor Emulated", pipeline_parallel=1)
"""It takes the time of any tensor parallelism; of pipelines it knows nothing."""


def objective_of(classes: list[Slo], prompt_tokens: int) -> Objective:
    """The strictest of all classes, for prompts of that length: the pools serve them all."""
    if not classes:
        return Objective()
    return Objective(
        ttft_s=min(ttft_bound(one, prompt_tokens) for one in classes),
        tpot_s=min(parse_duration(one.tpot) for one in classes),
        attainment=max(one.attainment_percent for one in classes) / 100,
    )


def ttft_bound(one: Slo, prompt_tokens: int) -> float:
    """Seconds."""
    more = parse_duration(one.ttft.per_thousand_tokens or "0s")
    return parse_duration(one.ttft.base) + more * prompt_tokens / 1000


def wish_of(pool: Pool, resources: frozenset[str] = frozenset()) -> Wish:
    """Devices that stand in `resources` by the name of a device resource count as `gpus`. A number of replicas does
    not take part: it is what it is, on whatever hardware."""
    asked = [int(str(count)) for name, count in pool.resources.limits.items() if name in resources]
    return Wish(
        hardware_classes=tuple(pool.hardware_classes),
        gpus=pool.gpus or (asked[0] if asked else None),
        tensor_parallel=pool.tensor_parallel,
        replicas=pool.replicas,
    )


def problem_of(
    spec: InferenceDeploymentSpec, shape: ModelShape, offers: tuple[Offer, ...], load: Load | None = None
) -> Problem:
    """`load`: None: typical lengths, rate unknown."""
    load = load or Load()
    resources = frozenset(offer.resource for offer in offers)
    return Problem(
        shape=shape,
        offers=offers,
        objective=objective_of(spec.slo, load.prompt_tokens),
        load=load,
        max_context_tokens=spec.model.max_context_tokens,
        quantization=spec.model.quantization,
        prefill=wish_of(spec.prefill, resources),
        decode=wish_of(spec.decode, resources),
        engine=TORCH_ENGINE if spec.runtime.executor == "Torch" else EMULATED_ENGINE,
    )
