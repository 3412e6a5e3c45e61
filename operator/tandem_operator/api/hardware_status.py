"""status of a HardwareClass: what the cluster has of it, and how replicas would fit into what is free."""

from __future__ import annotations

from pydantic import Field

from tandem_operator.api.spec import ApiModel
from tandem_operator.api.status import Condition


class Shape(ApiModel):
    """What is free, cut into replicas of one size."""

    devices: int = Field(description="Devices of one replica.", json_schema_extra={"format": "int32"})
    replicas: int = Field(description="Replicas that would fit now.", json_schema_extra={"format": "int32"})
    stranded: int = Field(
        description="Free devices left over in pieces too small for one more.", json_schema_extra={"format": "int32"}
    )


class HardwareCondition(Condition):
    """One statement about the class."""

    type: str = Field(description="Available or Consistent.")


class HardwareClassStatus(ApiModel):
    """What the operator found in the cluster."""

    observed_generation: int | None = Field(
        default=None,
        description="metadata.generation that this status is about.",
        json_schema_extra={"format": "int64"},
    )
    nodes: int = Field(default=0, description="Nodes of this class.", json_schema_extra={"format": "int32"})
    devices: int = Field(default=0, description="Devices on them.", json_schema_extra={"format": "int32"})
    free: int = Field(
        default=0,
        description="Devices that no pod has, on nodes that are ready and not cordoned.",
        json_schema_extra={"format": "int32"},
    )
    stranded: int = Field(
        default=0,
        description="Free devices on nodes where others are taken, so that no replica of a whole node fits.",
        json_schema_extra={"format": "int32"},
    )
    shapes: list[Shape] = Field(
        default_factory=list,
        description="How many replicas of 1, 2, 4, 8 ... devices would fit.",
        json_schema_extra={"maxItems": 16, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["devices"]},
    )
    conditions: list[HardwareCondition] = Field(
        default_factory=list,
        description=(
            "Available: there are nodes. Consistent: its nodes are what it says, and no other class claims them."
        ),
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "maxItems": 8},
    )
