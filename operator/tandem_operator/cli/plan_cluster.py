"""What the cluster of $KUBECONFIG has: hardware classes, nodes, and the devices that pods hold."""

from __future__ import annotations

import asyncio

from tandem_operator.placement.offers import Offers
from tandem_operator.placement.problem import Offer


class ClusterUnread(Exception):
    """One sentence: no kubeconfig, no answer, no right."""


def cluster_fleet(owner: str) -> tuple[tuple[Offer, ...], tuple[str, ...]]:
    """Offers of the classes that have nodes or may get some, and notes. What `owner` (namespace/name) holds counts as
    free. Raises ClusterUnread."""
    from tandem_operator.cluster.survey import Unread, survey_cluster

    try:
        inventory, problems = asyncio.run(survey_cluster())
    except Unread as error:
        raise ClusterUnread(str(error)) from error
    maker = Offers()
    used = inventory.used_by(owner)
    offers = [
        maker.of(source, inventory.capacity(name, without=owner), in_use=name in used)
        for name, source in inventory.classes.items()
    ]
    present = tuple(offer for offer in offers if offer.largest_node)
    notes = [f"HardwareClass {name} is left out: {problem}" for name, problem in sorted(problems.items())]
    notes += [
        f"{stranger.nodes} nodes with {stranger.devices} x {stranger.resource} ({stranger.product}) are of no class"
        for stranger in inventory.strangers()
    ]
    if not inventory.classes:
        raise ClusterUnread("the cluster has no HardwareClass; install the chart, or plan with --hardware instead")
    if not present:
        notes.append(f"no node is of any of the {len(inventory.classes)} hardware classes")
    return present, tuple(notes)
