"""What the cluster of $KUBECONFIG has: hardware classes, nodes, and the devices that pods hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.api.spec import Pool
from tandem_operator.placement.capacity import NodeGroup
from tandem_operator.placement.inventory import Inventory
from tandem_operator.placement.offers import Offers
from tandem_operator.placement.problem import Offer
from tandem_operator.reconcile.tolerations import tolerated_by


class ClusterUnread(Exception):
    """One sentence: no kubeconfig, no answer, no right."""


def cluster_fleet(infd: InferenceDeployment | None) -> tuple[tuple[Offer, ...], tuple[str, ...]]:
    """Offers of the classes that have nodes or may get some, and notes. What the deployment itself holds counts as
    free, nodes with taints that its pods do not tolerate do not. Raises ClusterUnread."""
    from tandem_operator.cluster.survey import Unread, survey_cluster

    try:
        inventory, problems = asyncio.run(survey_cluster())
    except Unread as error:
        raise ClusterUnread(str(error)) from error
    maker, owner = Offers(), f"{infd.namespace}/{infd.name}" if infd else ""
    accepts = tolerated_by([infd.spec.prefill, infd.spec.decode] if infd else [Pool()])
    used = inventory.used_by(owner)
    offers = [
        maker.of(source, inventory.capacity(name, without=owner), name in used, accepts)
        for name, source in inventory.classes.items()
    ]
    present = tuple(offer for offer in offers if offer.largest_node)
    notes = [f"HardwareClass {name} is left out: {problem}" for name, problem in sorted(problems.items())]
    notes += [
        f"{stranger.nodes} nodes with {stranger.devices} x {stranger.resource} ({stranger.product}) are of no class"
        for stranger in inventory.strangers()
    ]
    notes += _kept_away(inventory, accepts)
    if not inventory.classes:
        raise ClusterUnread("the cluster has no HardwareClass; install the chart, or plan with --hardware instead")
    if not present:
        notes.append(f"no node is of any of the {len(inventory.classes)} hardware classes")
    return present, tuple(notes)


def _kept_away(inventory: Inventory, accepts: Callable[[NodeGroup], bool]) -> list[str]:
    groups = [group for name in inventory.classes for group in inventory.capacity(name).groups if not accepts(group)]
    keys = sorted({taint.key for group in groups for taint in group.taints})
    nodes = sum(count for group in groups for _, count in group.free)
    if not nodes:
        return []
    return [f"{nodes} nodes are tainted ({', '.join(keys)}) and do not count; tolerations in the template of -f help"]
