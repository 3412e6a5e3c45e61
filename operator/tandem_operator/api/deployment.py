"""An InferenceDeployment as read from the API server: identity, spec, and what its revision is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tandem_operator.api import names, rules
from tandem_operator.api.spec import Emulated, InferenceDeploymentSpec


@dataclass(frozen=True)
class InferenceDeployment:
    """Identity and parsed spec."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: InferenceDeploymentSpec
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def model_name(self) -> str:
        return self.spec.model.name or self.name

    @property
    def rounds_on_cpu(self) -> bool:
        """int8 weights of executor Torch: its kernels are for CPUs, so no device is chosen."""
        return self.spec.runtime.executor == "Torch" and self.spec.model.quantization == "Int8Dynamic"

    def revision_inputs(self, image: str, quantization: str = "None") -> dict[str, str | int | None]:
        """Everything that must match between prefill and decode pods. `quantization`: the chosen one, if any was."""
        spec = self.spec
        if self.rounds_on_cpu:  # nothing is chosen for it
            quantization = spec.model.quantization
        emulated = spec.runtime.executor == "Emulated"
        return {
            "uri": spec.model.uri,
            "maxContextTokens": spec.model.max_context_tokens,
            "executor": spec.runtime.executor,
            "hardwareClass": (spec.runtime.emulated or Emulated()).hardware_class if emulated else None,
            "image": image,
            # Absent where it is not in use, so that revisions made before it existed stay what they are.
            **({} if quantization == "None" else {"quantization": quantization}),
        }


def parse_deployment(body: dict[str, Any], strict: bool = False) -> InferenceDeployment:
    """Raises ValueError, a sentence per wrong field, when the object does not follow the schema.

    The API server checks it before; this covers objects older than the installed CRD and `tandem render`, which is
    `strict`: it also refuses fields that do not exist, which the API server drops.
    """
    given = body.get("metadata")
    metadata: dict[str, Any] = given if isinstance(given, dict) else {}
    name = metadata.get("name")
    if not isinstance(name, str) or not re.fullmatch(rules.NAME_PATTERN, name):
        raise ValueError(f"metadata.name is {name!r}; give lower-case letters, digits and hyphens, a letter first")
    if len(name) > names.NAME_LIMIT:
        raise ValueError(
            f"metadata.name has {len(name)} characters; at most {names.NAME_LIMIT} leave room for children"
        )
    try:
        spec = InferenceDeploymentSpec.model_validate(body.get("spec") or {}, extra="forbid" if strict else "ignore")
    except ValidationError as error:
        raise ValueError("; ".join(map(_sentence, error.errors()))) from error
    if spec.runtime.executor == "Torch" and not spec.model.uri:
        raise ValueError("spec.model.uri is required with runtime.executor Torch, for example file:///models/tiny")
    return InferenceDeployment(
        name=name,
        namespace=metadata.get("namespace", "default"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        spec=spec,
        labels=metadata.get("labels") or {},
    )


def _sentence(error: Any) -> str:
    path = ".".join(["spec", *map(str, error["loc"])])
    if error["type"] == "extra_forbidden":
        return f"{path}: there is no such field; see kubectl explain infd.spec --recursive"
    if error["type"] == "model_type":
        return f"{path}: {error['input']!r} is no object with fields"
    return f"{path}: {error['msg']}, not {error['input']!r}"
