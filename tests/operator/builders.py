"""Builders of deployments and of an in-memory cluster whose controllers are played by the test."""

from __future__ import annotations

import copy
from typing import Any

from tandem_operator.api import names
from tandem_operator.api.deployment import InferenceDeployment, parse_deployment

Json = dict[str, Any]
TINY = {"uri": "file:///models/tiny"}


def body(name: str = "chat", **spec: Any) -> Json:
    """An InferenceDeployment as the API server stores it; `spec` replaces top-level fields."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-of-{name}", "generation": 1},
        "spec": {"model": TINY, **copy.deepcopy(spec)},
    }


def emulated_body(name: str = "fleet", **spec: Any) -> Json:
    runtime = {"executor": "Emulated", "emulated": {"hardwareClass": "laptop"}}
    return body(name, **{"model": {}, "runtime": runtime, **spec})


def deployment(name: str = "chat", **spec: Any) -> InferenceDeployment:
    return parse_deployment(body(name, **spec))
