"""Where pods may run, in the scheduler's own words: it binds, nodeName is never set.

Node affinity over exact label values, the preferred class first; the resource and the toleration of its key; spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tandem_runtime.contracts.names import LABEL_DEPLOYMENT, LABEL_REVISION, LABEL_ROLE

from tandem_operator.api import names

LABEL_QUEUE: Final = "kueue.x-k8s.io/queue-name"
"""Set on an InferenceDeployment it is passed on to its pools, which Kueue then admits."""
LABEL_HOST: Final = "kubernetes.io/hostname"
LABEL_ZONE: Final = "topology.kubernetes.io/zone"
LABEL_CLIQUE: Final = "nvidia.com/gpu.clique"
"""Nodes of one NVLink domain: KV pages between them are next to free."""

FIRST_WEIGHT: Final = 100
"""Of the preferred class; the scheduler takes 1 to 100. Each further class gets a smaller one."""
CLIQUE_WEIGHT: Final = 100
ZONE_WEIGHT: Final = 50
"""To be near the other pool is wanted, never required: a pod that runs elsewhere is better than none."""

Term = dict[str, Any]
"""A nodeSelectorTerm."""


@dataclass(frozen=True)
class PoolPlacement:
    """What one pool asks of the scheduler."""

    resource: str
    devices: int
    """Of one pod."""
    classes: tuple[tuple[Term, ...], ...] = ()
    """Node selector terms by hardware class, the preferred class first; empty: any node that has the resource."""
    shares_clique: bool = False
    """Both pools run on one class whose scale-up domain spans nodes."""


def place(template: dict[str, Any], placement: PoolPlacement, name: str, role: str, revision: str) -> dict[str, Any]:
    """`template` of a pool, with the placement; the user's override is merged over it later."""
    spec = template["spec"]
    affinity: dict[str, Any] = {"podAffinity": near_the_other_pool(placement, name, role)}
    if placement.classes:
        affinity["nodeAffinity"] = node_affinity(placement.classes)
    containers = [_with_devices(container, placement) for container in spec["containers"]]
    selector = {LABEL_DEPLOYMENT: name, LABEL_ROLE: role, LABEL_REVISION: revision}
    return {
        **template,
        "spec": {
            **spec,
            "containers": containers,
            "affinity": affinity,
            "tolerations": [*spec["tolerations"], {"key": placement.resource, "operator": "Exists"}],
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": LABEL_HOST,
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector},
                }
            ],
        },
    }


def node_affinity(classes: tuple[tuple[Term, ...], ...]) -> dict[str, Any]:
    """Any of the classes; with several, the scheduler prefers them in their order."""
    required = [term for terms in classes for term in terms]
    affinity: dict[str, Any] = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": required},
    }
    if len(classes) > 1:
        step = max(1, FIRST_WEIGHT // len(classes))
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": max(1, FIRST_WEIGHT - step * rank), "preference": term}
            for rank, terms in enumerate(classes)
            for term in terms
        ]
    return affinity


def near_the_other_pool(placement: PoolPlacement, name: str, role: str) -> dict[str, Any]:
    """Same NVLink clique where there is one, else same zone."""
    other = next(pool for pool in names.POOL_ROLES if pool != role)
    selector = {"matchLabels": {LABEL_DEPLOYMENT: name, LABEL_ROLE: other}}
    keys = [(CLIQUE_WEIGHT, LABEL_CLIQUE)] if placement.shares_clique else []
    return {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": weight, "podAffinityTerm": {"labelSelector": selector, "topologyKey": key}}
            for weight, key in [*keys, (ZONE_WEIGHT, LABEL_ZONE)]
        ]
    }


def queue_label(labels: Mapping[str, str]) -> dict[str, str]:
    """The Kueue queue of an InferenceDeployment with these labels, as a label of its pools."""
    return {LABEL_QUEUE: labels[LABEL_QUEUE]} if LABEL_QUEUE in labels else {}


def _with_devices(container: dict[str, Any], placement: PoolPlacement) -> dict[str, Any]:
    """Devices of the runtime container; Kubernetes wants limits and requests to be equal."""
    if container["name"] != names.MAIN_CONTAINER:
        return container
    amount = {placement.resource: str(placement.devices)}
    resources = container["resources"]
    return {
        **container,
        "resources": {
            **resources,
            "limits": {**resources.get("limits", {}), **amount},
            "requests": {**resources.get("requests", {}), **amount},
        },
    }
