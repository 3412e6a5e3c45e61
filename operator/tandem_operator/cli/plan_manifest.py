"""A ready InferenceDeployment from a choice, and what a person should know before applying it."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from typing import Any

from tandem_operator.api import names
from tandem_operator.cli.plan_input import Manifest, config_of
from tandem_operator.placement.candidates import Refusal
from tandem_operator.placement.choose import Choice
from tandem_operator.placement.problem import ROLES, TORCH_ENGINE, Problem

UNKNOWN_URI = "hf://organisation/repository"


def manifest(problem: Problem, choice: Choice, source: Manifest | None, options: argparse.Namespace) -> dict[str, Any]:
    """The given one with its placement fixed, or a new one."""
    if source:
        body = copy.deepcopy(source.body)
        body.pop("status", None)
    else:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": options.name},
            "spec": {"model": {"uri": options.uri or UNKNOWN_URI}},
        }
    spec: dict[str, Any] = body["spec"]
    model = spec.setdefault("model", {})
    if problem.max_context_tokens:
        model["maxContextTokens"] = problem.max_context_tokens
    if choice.prefill.candidate.quantization != "None":
        model["quantization"] = choice.prefill.candidate.quantization
    if not spec.get("slo") or options.slo:
        spec["slo"] = [_slo(problem)]
    for role in ROLES:
        pool = choice.role(role)
        chosen: dict[str, Any] = {"replicas": pool.replicas}
        chosen["hardwareClasses"] = [pool.candidate.hardware_class, *pool.alternatives]
        chosen["gpus"] = pool.gpus
        if pool.candidate.tensor_parallel > 1:
            chosen["tensorParallel"] = pool.candidate.tensor_parallel
        spec[role] = {**(spec.get(role) or {}), **chosen}
    if source is None and _is_ahead(choice):
        model.pop("uri")  # the API server would refuse it: no executor of this version loads weights that way
        model["config"] = config_of(options.model)
        spec["runtime"] = {"executor": "Emulated"}
    return body


def _is_ahead(choice: Choice) -> bool:
    """Whether this version's Torch executor cannot run it."""
    sides = [choice.role(role).candidate for role in ROLES]
    return any(one.gpus > TORCH_ENGINE.tensor_parallel or one.quantization != "None" for one in sides)


def _slo(problem: Problem) -> dict[str, Any]:
    objective = problem.objective
    return {
        "class": "interactive",
        "ttft": {"base": milliseconds(objective.ttft_s)},
        "tpot": milliseconds(objective.tpot_s),
        "attainmentPercent": min(99, int(objective.attainment * 100)),
    }


def milliseconds(seconds: float) -> str:
    """2s, 50ms: as the API takes it."""
    whole = max(1, round(seconds * 1000))
    return f"{whole // 1000}s" if whole % 1000 == 0 else f"{whole}ms"


def remarks(problem: Problem, choice: Choice | Refusal) -> Iterator[str]:
    """What is not as one would wish, a sentence each."""
    if isinstance(choice, Refusal):
        return
    sides = [(role, choice.role(role).candidate) for role in ROLES]
    if ahead := [f"{role} on {one}" for role, one in sides if one.gpus > 1 or one.quantization != "None"]:
        yield (
            f"{' and '.join(ahead)}: arithmetic so far; {TORCH_ENGINE.name} runs a replica on one device, with weights"
            " as stored. Executor Emulated runs the plan (-o yaml says so); --executor Torch plans what runs today"
        )
    if any(one.pipeline_parallel > 1 for _, one in sides):
        yield "no executor of this version runs pipeline stages (PP): -o yaml, or --executor Emulated, plans without"
    if choice.short:
        what = "1 replica finds" if choice.short == 1 else f"{choice.short} replicas find"
        yield f"{what} no room now; such pods wait until nodes are added or freed"
    for offer in problem.offers:
        taken = offer.name in (choice.prefill.candidate.hardware_class, choice.decode.candidate.hardware_class)
        if taken and not offer.hardware.verified:
            yield f"the figures of {offer.name} are from memory, not from a page that was read: check its HardwareClass"
