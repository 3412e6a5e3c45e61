"""The machines' network: a bridge in the control plane's namespace, one cable per node and one to the host.

Pods of a node have a /24 of their own and plain routes between the nodes, so that addresses are never translated.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout, node_index, node_names
from e2e.cluster.processes import run

NAMESPACES = Path("/run/netns")  # where iproute2 mounts them
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
BRIDGE = "br0"
_plugging = threading.Lock()
"""Nodes start side by side, but a route into a node that is half plugged in is refused: its gateway has no link yet."""


def find_conflicts(wanted: Sequence[IPv4Network], routes: Iterable[Mapping[str, object]], ours: str) -> list[str]:
    """Sentences about those of `routes` (from `ip -json route`) that overlap with `wanted` and are not on `ours`."""
    found = []
    for route in routes:
        destination, device = str(route.get("dst", "default")), str(route.get("dev", "none"))
        if destination == "default" or device == ours:
            continue
        network = IPv4Network(destination, strict=False)
        if network.prefixlen == 0:
            continue
        found += [f"{own} overlaps with {network} on {device}" for own in wanted if own.overlaps(network)]
    return sorted(set(found))


def check_free(layout: Layout) -> None:
    """Raise ClusterError when another program uses our addresses or device name."""
    routes = json.loads(run(["ip", "-4", "-json", "route", "show", "table", "all"]) or "[]")
    addresses = layout.addresses
    conflicts = find_conflicts([addresses.machines, addresses.pods, addresses.services], routes, layout.host_device)
    if conflicts:
        raise ClusterError(
            f"addresses are taken: {'; '.join(conflicts)}. Choose three free networks (machines /24, pods /16, "
            "services /16), for example TANDEM_CLUSTER_SUBNETS=10.30.0.0/24,10.31.0.0/16,10.32.0.0/16"
        )
    if not BRIDGE_FILTER.exists():
        run(["modprobe", "br_netfilter"], check=False)
        if not BRIDGE_FILTER.exists():
            raise ClusterError("the kernel lacks bridge netfilter, which Services need; try `modprobe br_netfilter`")


def create(layout: Layout) -> None:
    """Make the control plane's namespace, its bridge and the cable to the host."""
    own, host, addresses = layout.network_namespace, layout.host_device, layout.addresses
    width = addresses.machines.prefixlen
    run(["ip", "netns", "add", own])
    _batch(
        None,
        f"link add {host} type veth peer name host netns {own}",
        f"addr add {addresses.host}/{width} dev {host}",
        f"link set {host} up",
    )
    _batch(
        own,
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"link set host master {BRIDGE} up",
        f"addr add {addresses.control_plane}/{width} dev {BRIDGE}",
        f"link set {BRIDGE} up",
        f"route add default via {addresses.host}",
    )
    # the bridge only carries; filtering its frames would run every packet through an empty table
    _set(own, "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=0")


def add_node(layout: Layout, node: str, nodes: Sequence[str]) -> None:
    """Plug a node in and route its pods from everywhere; `nodes` are all that shall reach each other."""
    with _plugging:
        _plug(layout, node, nodes)


def _plug(layout: Layout, node: str, nodes: Sequence[str]) -> None:
    own, cable, addresses = layout.node_namespace(node), node, layout.addresses
    index = node_index(node)
    run(["ip", "netns", "add", own])
    _batch(
        layout.network_namespace,
        f"link add {cable} type veth peer name eth0 netns {own}",
        f"link set {cable} master {BRIDGE} up",
        f"route replace {addresses.node_pods(index)} via {addresses.node(index)}",
    )
    _batch(
        own,
        "link set lo up",
        f"addr add {addresses.node(index)}/{addresses.machines.prefixlen} dev eth0",
        "link set eth0 up",
        f"route add default via {addresses.host}",
        *[_pods_route(layout, other) for other in nodes if other != node],
    )
    _set(own, "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
    _batch(None, _pods_route(layout, node))
    for other in nodes:
        if other != node and (NAMESPACES / layout.node_namespace(other)).exists():
            _batch(layout.node_namespace(other), _pods_route(layout, node))


def remove_node(layout: Layout, node: str) -> None:
    """Unplug a node. Its routes stay, as they do when a machine loses power. Nothing happens when it is not there."""
    run(["ip", "-n", layout.network_namespace, "link", "del", node], check=False)
    if (NAMESPACES / layout.node_namespace(node)).exists():
        run(["ip", "netns", "del", layout.node_namespace(node)])


def route_services(layout: Layout, node: str) -> None:
    """Let the host and the API server (for webhooks) reach Services through `node`."""
    route = f"route replace {layout.addresses.services} via {layout.addresses.node(node_index(node))}"
    _batch(None, route)
    _batch(layout.network_namespace, route)


def destroy(layout: Layout) -> None:
    """Remove namespaces, cables and, with them, routes. Nothing happens when they are not there."""
    names = [layout.node_namespace(node) for node in node_names(9)]
    for name in [*names, layout.network_namespace]:
        if (NAMESPACES / name).exists():
            run(["ip", "netns", "del", name])
    if Path(f"/sys/class/net/{layout.host_device}").exists():
        run(["ip", "link", "del", layout.host_device], check=False)  # it may vanish with its peer meanwhile
    mounted = f" {NAMESPACES} " in Path("/proc/self/mounts").read_text()
    if mounted and not any(NAMESPACES.iterdir()):
        run(["umount", str(NAMESPACES)], check=False)  # iproute2 mounts it with the first namespace
    if Path(f"/sys/class/net/{layout.host_device}").exists():
        raise ClusterError(f"the device {layout.host_device} cannot be removed; see `ip link show`")


def _pods_route(layout: Layout, node: str) -> str:
    index = node_index(node)
    return f"route replace {layout.addresses.node_pods(index)} via {layout.addresses.node(index)}"


def _batch(namespace: str | None, *lines: str) -> None:
    inside = ["-n", namespace] if namespace else []
    run(["ip", *inside, "-batch", "-"], stdin="\n".join(lines) + "\n")


def _set(namespace: str, *settings: str) -> None:
    run(["ip", "netns", "exec", namespace, "sysctl", "-qw", *settings])
