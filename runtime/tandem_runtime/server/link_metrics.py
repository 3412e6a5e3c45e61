"""Metrics of the KV links of a pod, one series for each peer."""

from __future__ import annotations

from typing import Any

from tandem_runtime.server.pod import Pod
from tandem_runtime.telemetry.exposition import Metric
from tandem_runtime.transfer.link_health import LinkHealth


def links_of(pod: Pod) -> list[LinkHealth]:
    """Those that it opened, and those that others opened."""
    return [*pod.receiver.links.links.values(), *pod.sender.links.links.values()]


def link_metrics(pod: Pod) -> list[Metric]:
    """One series for each peer; what is not known yet has none."""
    up: list[tuple[Any, float]] = []
    speed: list[tuple[Any, float]] = []
    preflight: list[tuple[Any, float]] = []
    seen: list[tuple[Any, float]] = []
    for link in links_of(pod):
        peer = {"peer": link.pod, "address": link.address, "type": link.transport}
        up.append((peer, int(link.connected)))
        if link.bytes_per_second:
            speed.append((peer, link.bytes_per_second))
        if link.preflight:
            preflight.append((peer, int(link.preflight == "ok")))
        if link.last_seen is not None:
            seen.append((peer, pod.clock() - link.last_seen))
    return [
        Metric("tandem_kv_link_up", "1 while the connection to the peer stands", "gauge", up),
        Metric("tandem_kv_link_bytes_per_second", "Measured with test blocks", "gauge", speed),
        Metric("tandem_kv_link_preflight_ok", "1 when the last test of the link went well", "gauge", preflight),
        Metric("tandem_kv_link_last_seen_seconds", "Since the peer was last heard", "gauge", seen),
    ]
