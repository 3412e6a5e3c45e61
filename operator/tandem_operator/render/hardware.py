"""What a choice of hardware adds to the objects: placement of both pools, and the speed that emulated pods take on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tandem_operator.api import names
from tandem_operator.render.placement import PoolPlacement

COEFFICIENTS_PATH: Final = "/etc/tandem/coefficients"


@dataclass(frozen=True)
class Hardware:
    """By role; a role that is missing runs on any node, with the devices that its resources name."""

    placements: Mapping[str, PoolPlacement] = field(default_factory=dict)
    coefficients: Mapping[str, str] = field(default_factory=dict)
    """Executor Emulated: coefficients files as text; empty: those that are there already."""
    quantization: str = "None"
    record: str = ""
    """JSON of the choice, kept on the pools: what runs is known again after a restart of the operator."""


ANY_NODE: Final = Hardware()


def coefficients_file(role: str) -> str:
    return f"{COEFFICIENTS_PATH}/{role}.json"


def coefficients_data(hardware: Hardware) -> dict[str, str]:
    """Of the ConfigMap `NAME-coefficients`."""
    return {f"{role}.json": text for role, text in sorted(hardware.coefficients.items()) if text}


def add_coefficients(template: dict[str, Any], name: str) -> None:
    """Mounts that ConfigMap into a pod template that was just made."""
    spec = template["spec"]
    spec["volumes"].append({"name": "coefficients", "configMap": {"name": names.coefficients_name(name)}})
    mount = {"name": "coefficients", "mountPath": COEFFICIENTS_PATH, "readOnly": True}
    spec["containers"][0]["volumeMounts"].append(mount)
