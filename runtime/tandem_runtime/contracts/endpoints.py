"""The endpoint file that a router reads: which pods there are, by address or by the name of a headless Service.

Roles in it are for people: what a pod does is what its hello says. The two differ while a pod changes its role, until
whoever writes the file has seen it; a router that went by the file would send answers to a pod that computes prompts.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tandem_runtime.contracts.names import INTERNAL_PORT

SCHEMA = 1


class PodEndpoint(msgspec.Struct, frozen=True):
    """A pod known by address: "ip" or "ip:internal-port"."""

    pod: str
    address: str
    role: str
    revision: str


class ServiceEndpoint(msgspec.Struct, frozen=True):
    """A DNS name whose every address is a pod; the pod's hello says which. So serving needs no live operator."""

    service: str
    role: str


class Endpoints(msgspec.Struct, frozen=True):
    """Content of the endpoint file."""

    schema: int = SCHEMA
    pods: list[PodEndpoint] = []
    services: list[ServiceEndpoint] = []
    routers: int = 1
    """How many routers share the limits of API keys, while no pod is there to say how many are connected."""


def read_endpoints(path: Path) -> Endpoints:
    """Raises ValueError naming the file when it is not an endpoint file of a schema that this program knows."""
    try:
        endpoints = msgspec.json.decode(path.read_bytes(), type=Endpoints)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is not an endpoint file: {error}") from error
    if endpoints.schema != SCHEMA:
        raise ValueError(f"{path} has schema {endpoints.schema}; this program reads schema {SCHEMA}")
    return endpoints


def split_address(address: str, default_port: int = INTERNAL_PORT) -> tuple[str, int]:
    """("10.0.0.7", 8001) of "10.0.0.7" or "10.0.0.7:8001"; IPv6 with a port is written "[::1]:8001"."""
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        return host, int(rest[1:]) if rest.startswith(":") else default_port
    if address.count(":") == 1:
        host, _, port = address.partition(":")
        return host, int(port)
    return address, default_port
