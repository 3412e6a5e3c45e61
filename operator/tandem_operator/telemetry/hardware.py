"""Metrics of hardware: read from the inventory whenever they are scraped, only of classes that the cluster has."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tandem_operator.placement.inventory import Inventory


class HardwareCollector(Collector):
    """Devices by state, nodes by state, and how replicas of 1, 2, 4, 8 ... devices would fit."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def describe(self) -> Iterable[Metric]:
        """Nothing is computed at registration."""
        return []

    def collect(self) -> Iterable[Metric]:
        prefix = "tandem_operator"
        devices = GaugeMetricFamily(
            f"{prefix}_devices",
            "Devices: free, held by pods, or unavailable (their nodes are cordoned or not ready).",
            labels=["class", "state"],
        )
        nodes = GaugeMetricFamily(
            f"{prefix}_nodes", "Nodes: offered to new pods, cordoned, unready.", labels=["class", "state"]
        )
        fit = GaugeMetricFamily(
            f"{prefix}_replicas_fit", "Replicas of so many devices that would fit now.", labels=["class", "devices"]
        )
        stranded = GaugeMetricFamily(
            f"{prefix}_devices_stranded",
            "Free devices in pieces too small for a replica of so many.",
            labels=["class", "devices"],
        )
        for name, capacity in sorted(self._inventory.capacities().items()):
            if not capacity.nodes:
                continue
            states = {
                "free": capacity.free,
                "held": capacity.offered - capacity.free,
                "unavailable": capacity.devices - capacity.offered,
            }
            for state, count in states.items():
                devices.add_metric([name, state], count)
            offered = sum(count for _, count in capacity.free_nodes)
            for state, count in (
                ("offered", offered), ("cordoned", capacity.cordoned_nodes), ("unready", capacity.unready_nodes)
            ):  # fmt: skip
                nodes.add_metric([name, state], count)
            for cut in map(capacity.fragmentation, capacity.shapes):
                fit.add_metric([name, str(cut.devices)], cut.replicas)
                stranded.add_metric([name, str(cut.devices)], cut.stranded)
        unknown = GaugeMetricFamily(
            f"{prefix}_devices_unrecognized",
            "Devices that no hardware class claims, by the name that their nodes give them.",
            labels=["product", "resource", "verdict"],
        )
        for one in self._inventory.strangers():
            unknown.add_metric([one.product, one.resource, one.verdict.lower()], one.devices)
        return [devices, nodes, fit, stranded, unknown]
