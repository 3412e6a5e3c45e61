"""How many replicas of a size still find a place: devices are only of use together on one node."""

from __future__ import annotations

from collections.abc import Iterable

Histogram = tuple[tuple[int, int], ...]
"""(free devices on a node, count of such nodes)."""
Wanted = Iterable[tuple[int, int]]
"""(devices of a replica, replicas)."""


def short_of(free: Histogram, wanted: Wanted) -> int:
    """Of `wanted`, replicas that find no place."""
    asked = tuple(wanted)
    if len(asked) == 1:
        gpus, replicas = asked[0]
        return max(0, replicas - sum(count * (devices // gpus) for devices, count in free))
    return _settle(free, asked)[0]


def after(free: Histogram, wanted: Wanted) -> Histogram:
    """What is left when `wanted` is met, as far as it can be; the most free first."""
    nodes = _settle(free, wanted)[1]
    return tuple(sorted(((devices, count) for devices, count in nodes.items() if devices and count), reverse=True))


def clamp(free: Histogram, replicas: int) -> Histogram:
    """No more nodes of a kind than replicas could be put on: all else makes no difference to them."""
    return tuple((devices, min(count, replicas)) for devices, count in free)


def _settle(free: Histogram, wanted: Wanted) -> tuple[int, dict[int, int]]:
    """Largest first, fullest node first: (replicas without a place, nodes by free devices that are left)."""
    nodes: dict[int, int] = {}
    for devices, count in free:
        nodes[devices] = nodes.get(devices, 0) + count
    missing = 0
    for gpus, replicas in sorted(wanted, reverse=True):
        left = replicas
        for devices in sorted(devices for devices in nodes if devices >= gpus > 0):
            count, each = nodes[devices], devices // gpus
            full, rest = divmod(left, each)
            used = min(count, full)
            left -= used * each
            _move(nodes, devices, devices % gpus, used)
            if used < count and rest and left:
                taken = min(left, each)
                left -= taken
                _move(nodes, devices, devices - taken * gpus, 1)
            if not left:
                break
        missing += left
    return missing, nodes


def _move(nodes: dict[int, int], devices: int, rest: int, count: int) -> None:
    if count:
        nodes[devices] -= count
        nodes[rest] = nodes.get(rest, 0) + count
