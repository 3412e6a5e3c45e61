"""status of an InferenceDeployment: what the operator saw, in words that answer "is it fine, and if not why"."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tandem_operator.api.spec import ApiModel


class Condition(ApiModel):
    """One statement about the deployment."""

    type: str = Field(
        description="Accepted, {Prefill,Decode,Router}Available, Progressing, ReplicasOverridden or Ready."
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
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Statements by type. Ready sums up; its reason and message say why not.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "maxItems": 32},
    )
