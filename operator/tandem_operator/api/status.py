"""status of an InferenceDeployment: what the operator saw, in words that answer "is it fine, and if not why"."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tandem_operator.api.spec import ApiModel


class Condition(ApiModel):
    """One statement about the deployment."""

    type: str = Field(
        description="Accepted, Placed, {Prefill,Decode,Router}Available, Progressing, ReplicasOverridden or Ready."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the statement holds.")
    reason: str = Field(description="One word for programs.")
    message: str = Field(
        description="A sentence for people; where something is not as wished, it says what to do next."
    )
    last_transition_time: str = Field(
        description="When status last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int = Field(
        description="metadata.generation that the statement is about.", json_schema_extra={"format": "int64"}
    )


class PoolStatus(ApiModel):
    """Pods of one role; during a rollout, those that take traffic."""

    ready: int = Field(description="Pods that are ready.", json_schema_extra={"format": "int32"})
    want: int = Field(description="Pods that are wanted.", json_schema_extra={"format": "int32"})
    summary: str = Field(description="ready/want, as printed by kubectl get.")
    revision: str = Field(description="Revision of these pods.")


class RejectedClass(ApiModel):
    """A hardware class that was not taken."""

    hardware_class: str = Field(alias="class", description="Name of the HardwareClass.")
    reason: str = Field(description="Why, with the numbers.")


class RolePlacement(ApiModel):
    """Where the pods of one role go."""

    hardware_class: str = Field(alias="class", description="HardwareClass that is preferred; empty: any node.")
    classes: list[str] = Field(
        default_factory=list,
        description="All HardwareClasses whose nodes may take the pods, the preferred one first.",
        json_schema_extra={"maxItems": 64},
    )
    resource: str = Field(default="", description="Extended resource that the pods request.")
    gpus: int = Field(description="Devices of one pod.", json_schema_extra={"format": "int32"})
    tensor_parallel: int = Field(description="Devices that share every layer.", json_schema_extra={"format": "int32"})
    quantization: str = Field(default="None", description="How the weights are held.")
    bound: str = Field(
        default="",
        description="What keeps a replica from more: compute, bandwidth, memory, link or batch (sequences of a step).",
    )
    why: str = Field(description="What it does at the objective, and what bounds it.")
    rejected: list[RejectedClass] = Field(
        default_factory=list,
        description="Other classes, and why they were not taken.",
        json_schema_extra={"maxItems": 64},
    )


class Placement(ApiModel):
    """Which hardware the pools run on, and why."""

    prefill: RolePlacement | None = Field(default=None, description="The prefill pool.")
    decode: RolePlacement | None = Field(default=None, description="The decode pool.")
    ttft: str | None = Field(default=None, description="Predicted time to the first token without queueing.")
    tpot: str | None = Field(default=None, description="Predicted time per output token at full batch.")
    price_per_hour: str | None = Field(
        default=None, description="Of both pools as they are now, in the currency of the HardwareClasses."
    )


class InferenceDeploymentStatus(ApiModel):
    """What the operator saw last."""

    observed_generation: int | None = Field(
        default=None,
        description="metadata.generation that this status is about.",
        json_schema_extra={"format": "int64"},
    )
    revision: str | None = Field(
        default=None,
        description="Hash of everything that must match between prefill and decode pods, as the spec now says it.",
    )
    url: str | None = Field(default=None, description="Where clients inside the cluster reach the OpenAI API.")
    prefill: PoolStatus | None = Field(default=None, description="The prefill pool.")
    decode: PoolStatus | None = Field(default=None, description="The decode pool.")
    router: PoolStatus | None = Field(default=None, description="The router pods.")
    placement: Placement | None = Field(default=None, description="Which hardware the pools run on, and why.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Statements by type. Ready sums up; its reason and message say why not.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "maxItems": 32},
    )
