"""Metrics of hardware: devices by state, what would fit, what is stranded, what nobody knows."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from tandem_operator.placement.catalogue import bundled
from tandem_operator.placement.inventory import Inventory
from tandem_operator.telemetry.hardware import HardwareCollector

from e2e.node_labels import gfd
from tests.operator.placement.nodes import node, pod


def test_a_scrape_tells_devices_fragmentation_and_strangers_of_classes_that_are_there() -> None:
    inventory = Inventory(bundled().values())
    for name in "abc":
        inventory.put_node(node(name))
    inventory.put_node(node("d", cordoned=True))
    inventory.put_node(node("e", gfd("NVIDIA-H20", 97871, "9.0", "hopper")))
    inventory.put_pod(pod("x/1", "a", 3))
    registry = CollectorRegistry()
    registry.register(HardwareCollector(inventory))
    text = generate_latest(registry).decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    want = {
        'tandem_operator_devices{class="h100-sxm",state="free"}': 21,
        'tandem_operator_devices{class="h100-sxm",state="held"}': 3,
        'tandem_operator_devices{class="h100-sxm",state="unavailable"}': 8,
        'tandem_operator_nodes{class="h100-sxm",state="offered"}': 3,
        'tandem_operator_nodes{class="h100-sxm",state="cordoned"}': 1,
        'tandem_operator_nodes{class="h100-sxm",state="unready"}': 0,
        'tandem_operator_replicas_fit{class="h100-sxm",devices="8"}': 2,
        'tandem_operator_devices_stranded{class="h100-sxm",devices="8"}': 5,
        'tandem_operator_replicas_fit{class="h100-sxm",devices="2"}': 10,
        'tandem_operator_devices_unrecognized{product="NVIDIA-H20",resource="nvidia.com/gpu",verdict="unknown"}': 8,
    }
    assert {name: float(lines[name]) for name in want} == want
    assert 'class="l4"' not in text, "classes without nodes are no series"
