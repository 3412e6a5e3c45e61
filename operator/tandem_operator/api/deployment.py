"""An InferenceDeployment as read from the API server: identity, spec, and what its revision is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tandem_operator.api import names
from tandem_operator.api.spec import Emulated, InferenceDeploymentSpec


@dataclass(frozen=True)
class InferenceDeployment:
    """Identity and parsed spec."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: InferenceDeploymentSpec

    @property
    def model_name(self) -> str:
        return self.spec.model.name or self.name

    def revision_inputs(self, image: str) -> dict[str, str | int | None]:
        """Everything that must match between prefill and decode pods."""
        spec = self.spec
        emulated = spec.runtime.executor == "Emulated"
        return {
            "uri": spec.model.uri,
            "maxContextTokens": spec.model.max_context_tokens,
            "executor": spec.runtime.executor,
            "hardwareClass": (spec.runtime.emulated or Emulated()).hardware_class if emulated else None,
            "image": image,
        }


def parse_deployment(body: dict[str, Any]) -> InferenceDeployment:
    """Raises ValueError, a sentence per wrong field, when the object does not follow the schema.

    The API server checks it before; this covers objects older than the installed CRD and `tandem render`.
    """
    metadata = body["metadata"]
    name = metadata["name"]
    if len(name) > names.NAME_LIMIT:
        raise ValueError(
            f"metadata.name has {len(name)} characters; at most {names.NAME_LIMIT} leave room for children"
        )
    try:
        spec = InferenceDeploymentSpec.model_validate(body.get("spec") or {})
    except ValidationError as error:
        lines = [f"spec.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ValueError("; ".join(lines)) from error
    if spec.runtime.executor == "Torch" and not spec.model.uri:
        raise ValueError("spec.model.uri is required with runtime.executor Torch, for example file:///models/tiny")
    return InferenceDeployment(
        name=name,
        namespace=metadata.get("namespace", "default"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        spec=spec,
    )
