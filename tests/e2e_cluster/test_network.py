from __future__ import annotations

from ipaddress import IPv4Network

from e2e.cluster.network import find_conflicts

WANTED = [IPv4Network("10.20.0.0/24"), IPv4Network("10.245.0.0/16")]


def test_default_routes_and_our_own_device_are_no_conflict() -> None:
    routes = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "0.0.0.0/0", "dev": "wg0"},
        {"dst": "10.20.0.0/24", "dev": "tandem-host"},
        {"dst": "192.168.1.0/24", "dev": "eth0"},
    ]
    assert find_conflicts(WANTED, routes, "tandem-host") == []


def test_a_route_inside_or_around_ours_is_named_with_its_device() -> None:
    routes = [{"dst": "10.0.0.0/8", "dev": "wg0"}, {"dst": "10.245.3.7", "dev": "lo", "type": "local"}]
    assert find_conflicts(WANTED, routes, "tandem-host") == [
        "10.20.0.0/24 overlaps with 10.0.0.0/8 on wg0",
        "10.245.0.0/16 overlaps with 10.0.0.0/8 on wg0",
        "10.245.0.0/16 overlaps with 10.245.3.7/32 on lo",
    ]
