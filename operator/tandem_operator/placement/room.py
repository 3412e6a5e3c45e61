"""How many replicas of a size still find a place: devices are only of use together on one node."""

from __future__ import annotations

from collections.abc import Iterable

Histogram = tuple[tuple[int, int], ...]
"""(free devices on a node, count of such nodes)."""


def places(free: Histogram, gpus: int) -> int:
    """Replicas of `gpus` devices that fit; 0 devices fit without end, which is said as a very large number."""
    if gpus <= 0:
        return 1 << 30
    return sum(nodes * (devices // gpus) for devices, nodes in free)


def stranded(free: Histogram, gpus: int) -> int:
    """Free devices that no replica of `gpus` devices can use."""
    return sum(nodes * (devices % gpus) for devices, nodes in free) if gpus > 0 else 0


def short_of(free: Histogram, wanted: Iterable[tuple[int, int]]) -> int:
    """Of `wanted` (devices per replica, replicas), those that find no place. Largest first, fullest node first."""
    nodes = {devices: count for devices, count in free if count > 0}
    missing = 0
    for gpus, replicas in sorted(wanted, reverse=True):
        left = replicas
        for devices in sorted(devices for devices in nodes if devices >= gpus > 0):
            count = nodes[devices]
            full, rest = divmod(left, devices // gpus)
            used = min(count, full)
            left -= used * (devices // gpus)
            _move(nodes, devices, devices % gpus, used)
            if used < count and rest and left:
                taken = min(left, devices // gpus)
                left -= taken
                _move(nodes, devices, devices - taken * gpus, 1)
            if not left:
                break
        missing += left
    return missing


def _move(nodes: dict[int, int], devices: int, rest: int, count: int) -> None:
    if count:
        nodes[devices] -= count
        nodes[rest] = nodes.get(rest, 0) + count
