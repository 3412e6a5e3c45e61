"""Names of everything Tandem creates: children, labels, revisions. Selectors are immutable, so these never change."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from tandem_runtime.contracts import names as runtime

GROUP: Final = "tandem.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "InferenceDeployment"
PLURAL: Final = "inferencedeployments"
FIELD_MANAGER: Final = "tandem"
APP_NAME: Final = "tandem-runtime"

POOL_ROLES: Final = ("prefill", "decode")
ROLES: Final = (*POOL_ROLES, "router")

REVISION_LENGTH: Final = 8
LABEL_LIMIT: Final = 63
NAME_LIMIT: Final = LABEL_LIMIT - len("-prefill-") - REVISION_LENGTH
"""Longest metadata.name whose children's names still fit a DNS label: 63 - 9 - 8 = 46."""

ANNOTATION_REVISION_INPUTS: Final = "tandem.dev/revision-inputs"
"""On every pool: what its revision was made of, so that an operator upgrade keeps the image of a running one."""

ANNOTATION_PLACEMENT: Final = "tandem.dev/placement"
"""On every pool: the hardware that was chosen, as JSON. What runs is kept unless another choice is much better."""

MAIN_CONTAINER: Final = "runtime"
FETCH_CONTAINER: Final = "fetch"


def router_name(name: str) -> str:
    return f"{name}-router"


def pool_name(name: str, role: str, revision: str) -> str:
    return f"{name}-{role}-{revision}"


def pool_service_name(name: str, role: str) -> str:
    return f"{name}-{role}"


def endpoints_name(name: str) -> str:
    return f"{name}-endpoints"


def coefficients_name(name: str) -> str:
    return f"{name}-coefficients"


def token_name(name: str) -> str:
    return f"{name}-token"


def common_labels(name: str) -> dict[str, str]:
    """Labels of every child."""
    return {
        runtime.LABEL_NAME: APP_NAME,
        runtime.LABEL_INSTANCE: name,
        runtime.LABEL_MANAGED_BY: runtime.MANAGED_BY,
        runtime.LABEL_DEPLOYMENT: name,
    }


def selector_labels(name: str, role: str, revision: str | None = None) -> dict[str, str]:
    """Labels that select the pods of a role, of one revision or of all."""
    labels = {runtime.LABEL_DEPLOYMENT: name, runtime.LABEL_ROLE: role}
    return labels | {runtime.LABEL_REVISION: revision} if revision else labels


def pod_labels(name: str, role: str, revision: str) -> dict[str, str]:
    """Labels of a pod; `llm-d.ai/role` only on model pods: a router is none of its roles."""
    labels = common_labels(name) | selector_labels(name, role, revision)
    return labels | {runtime.LABEL_LLMD_ROLE: role} if role in POOL_ROLES else labels


RESERVED_LABELS: Final = frozenset(pod_labels("x", "prefill", "0"))
"""Labels that a pod template override may not set: selectors and other programs rely on them."""


def revision_of(inputs: dict[str, str | int | None]) -> str:
    """8 hex characters of the hash of everything that must match between the two pools."""
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:REVISION_LENGTH]
