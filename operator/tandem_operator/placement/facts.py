"""Nodes and pods as placement sees them: plain values, whoever read them from wherever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from tandem_operator.placement.capacity import Taint

DRAIN_TAINTS: Final = frozenset(
    (
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "ToBeDeletedByClusterAutoscaler",
        "node.kubernetes.io/unschedulable",
    )
)
"""Their nodes are on their way out: as cordoned."""

STATE_TAINTS: Final = frozenset(("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"))
"""Say what Ready says already."""

HARD_EFFECTS: Final = ("NoSchedule", "NoExecute")


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A node, as far as placement cares."""

    name: str
    labels: Mapping[str, str] = {}
    devices: Mapping[str, int] = {}
    """Allocatable extended resources; others than accelerators are ignored."""
    ready: bool = True
    cordoned: bool = False
    taints: tuple[Taint, ...] = ()

    @property
    def drains(self) -> bool:
        """Takes no new pods, by a person's will or an autoscaler's."""
        return self.cordoned or any(taint.key in DRAIN_TAINTS for taint in self.taints)


class PodFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that is bound to a node and has not ended."""

    key: str
    """namespace/name."""
    node: str
    devices: Mapping[str, int] = {}
    """Extended resources that it holds."""
    owner: str = ""
    """namespace/name of the InferenceDeployment that it belongs to; empty: somebody else's."""


class Stranger(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that no class claims, by the name that their nodes give them."""

    product: str
    resource: str
    verdict: str
    hardware_class: str
    """The class that the nodes name though they contradict it, or of which they have parts; empty: none."""
    reason: str
    nodes: int
    devices: int
    example: str
    """One of the nodes."""
    template: str
    """A HardwareClass to fill in."""


def hard_taints(taints: Iterable[Taint]) -> tuple[Taint, ...]:
    """Those that keep pods away, in one order."""
    return tuple(sorted(taint for taint in taints if taint.effect in HARD_EFFECTS and taint.key not in STATE_TAINTS))
