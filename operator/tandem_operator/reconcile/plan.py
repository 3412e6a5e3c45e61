"""Pure: which revision is wanted, whether the router may move to it, and what may go."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tandem_runtime.contracts.names import LABEL_REVISION, LABEL_ROLE

from tandem_operator.api import names
from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.config import RenderSettings
from tandem_operator.reconcile.observe import (
    Observed,
    is_available,
    is_rolled_out,
    label,
    router_revision,
    routers_alive,
)
from tandem_operator.reconcile.world import Object
from tandem_operator.render.hardware import ANY_NODE, Hardware
from tandem_operator.render.objects import render


@dataclass(frozen=True)
class Plan:
    """What to apply and what to remove."""

    revision: str
    image: str
    serving_revision: str
    """Of the pools that take traffic now; the router follows it."""
    apply: list[Object]
    keep: frozenset[str]
    """Revisions whose pools stay."""

    def prunable_pools(self, observed: Observed) -> list[str]:
        """Pools of revisions that nothing uses any more; the other children keep their names for ever."""
        return [
            name
            for (kind, name), child in observed.children.items()
            if kind == "Deployment"
            and label(child, LABEL_ROLE) in names.POOL_ROLES
            and label(child, LABEL_REVISION) not in self.keep
        ]


def choose_image(
    infd: InferenceDeployment, observed: Observed, settings: RenderSettings, quantization: str = "None"
) -> str:
    """The spec's; else that of a running revision which differs in nothing else; else the operator's default.

    So an operator upgrade, which brings a new default, restarts no model pod.
    """
    if infd.spec.runtime.image:
        return infd.spec.runtime.image
    current = router_revision(observed.router())
    pools = observed.deployments("prefill") | observed.deployments("decode")
    for _, pool in sorted(pools.items(), key=lambda item: item[0] != current):
        inputs = read_inputs(pool)
        image = inputs.get("image")
        if image and inputs == infd.revision_inputs(image, quantization):
            return str(image)
    return settings.default_runtime_image


def read_inputs(pool: Object) -> dict[str, Any]:
    """What the revision of `pool` was made of; empty where somebody spoilt the annotation, which is then repaired."""
    text = (pool["metadata"].get("annotations") or {}).get(names.ANNOTATION_REVISION_INPUTS, "{}")
    try:
        inputs = json.loads(text)
    except ValueError:
        return {}
    return inputs if isinstance(inputs, dict) else {}


def make_plan(
    infd: InferenceDeployment,
    observed: Observed,
    settings: RenderSettings,
    hardware: Hardware = ANY_NODE,
    now: datetime | None = None,
) -> Plan:
    """New pools come up beside the old; the router moves when both are available; the old go when it has moved, and
    no router pod of theirs is left that still answers.

    Raises InvalidTemplate or ValueError when the spec cannot be rendered.
    """
    image = choose_image(infd, observed, settings, hardware.quantization)
    revision = names.revision_of(infd.revision_inputs(image, hardware.quantization))
    router = observed.router()
    current = router_revision(router)
    pools_ready = all(is_available(observed.deployments(role).get(revision)) for role in names.POOL_ROLES)
    router_moves = current in (None, revision) or pools_ready
    apply = render(infd, revision, image, settings, router_moves, hardware)
    standing = {rev for role in names.POOL_ROLES for rev in observed.deployments(role)}
    if current is None:
        # Somebody deleted the router: what cannot serve yet must not cost the pools that a change back would need.
        keep = {revision} if pools_ready else standing | {revision}
        return Plan(revision, image, revision, apply, frozenset(keep))
    if not is_rolled_out(router):
        # Its pods may be of any revision that still stands.
        return Plan(revision, image, current, apply, frozenset(standing | {revision}))
    # A Deployment does not count pods on their way out: these routers still take requests for a moment.
    used = routers_alive(observed, now) & standing
    return Plan(revision, image, current, apply, frozenset({current, revision} | used))
