"""Where a local cluster lives: names, folders and addresses. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from e2e.cluster.errors import ClusterError

DEFAULT_NAME = "tandem"
MAX_NODES = 9  # node addresses end in .10 to .18; nine kubelets are more than two cores can feed
# Chosen away from what Docker, kind, minikube, cloud VPCs and home routers use by default.
DEFAULT_SUBNETS = "10.20.0.0/24,10.245.0.0/16,10.97.0.0/16"
RUNS = Path("/run/tandem")
SUBNETS_FILE = "subnets"  # in the run folder: later commands need not be told again
DEVICE_NAME_BYTES = 15  # limit of the kernel


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/tandem`: what is kept between runs."""
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem"


@dataclass(frozen=True)
class Addresses:
    """Three networks of one cluster: machines (a /24), pods (a /16, one /24 per node) and Services."""

    machines: IPv4Network
    pods: IPv4Network
    services: IPv4Network

    @classmethod
    def parse(cls, text: str) -> Addresses:
        """Read "10.20.0.0/24,10.245.0.0/16,10.97.0.0/16". Raises ClusterError."""
        try:
            machines, pods, services = (IPv4Network(part.strip()) for part in text.split(","))
        except ValueError as error:
            raise ClusterError(f"subnets must look like {DEFAULT_SUBNETS}, not {text!r}: {error}") from error
        networks = [machines, pods, services]
        for network, longest in zip(networks, (24, 16, 24), strict=True):
            if network.prefixlen > longest:
                raise ClusterError(f"{network} is too small; it must be a /{longest} or larger (subnets: {text})")
        if any(a.overlaps(b) for a in networks for b in networks if a is not b):
            raise ClusterError(f"the subnets {text} overlap; give three that do not")
        return cls(machines, pods, services)

    @property
    def text(self) -> str:
        """What `parse` reads."""
        return f"{self.machines},{self.pods},{self.services}"

    @property
    def host(self) -> IPv4Address:
        """This machine, as the cluster sees it; webhooks of a test may listen here."""
        return self.machines[1]

    @property
    def control_plane(self) -> IPv4Address:
        return self.machines[2]

    @property
    def api_service(self) -> IPv4Address:
        return self.services[1]

    @property
    def dns_service(self) -> IPv4Address:
        return self.services[10]

    def node(self, index: int) -> IPv4Address:
        return self.machines[10 + index]

    def node_pods(self, index: int) -> IPv4Network:
        """The /24 from which node `index` gives addresses to its pods."""
        return IPv4Network((int(self.pods.network_address) + (index << 8), 24))


@dataclass(frozen=True)
class Layout:
    """Folders and names of the local cluster `name`."""

    name: str
    cache: Path = field(default_factory=cache_folder)
    runs: Path = RUNS
    addresses: Addresses = field(default_factory=lambda: Addresses.parse(DEFAULT_SUBNETS))

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,8}", self.name):
            raise ClusterError(
                f"cluster name {self.name!r}: use 1 to 9 small letters and digits, a letter first "
                f"(network devices are named after it and may have {DEVICE_NAME_BYTES} bytes)"
            )

    @classmethod
    def find(cls, name: str, subnets: str, runs: Path = RUNS) -> Layout:
        """The layout of `name` with the addresses of the cluster that exists, or else with `subnets`."""
        layout = cls(name, runs=runs, addresses=Addresses.parse(subnets))
        file = layout.run / SUBNETS_FILE
        return replace(layout, addresses=Addresses.parse(file.read_text())) if file.is_file() else layout

    @property
    def run(self) -> Path:
        """Exists only while the cluster does."""
        return self.runs / self.name

    @property
    def kubeconfig(self) -> Path:
        return self.run / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.run / "pki"

    @property
    def logs(self) -> Path:
        return self.run / "log"

    @property
    def audit_log(self) -> Path:
        return self.run / "audit.log"

    @property
    def lock(self) -> Path:
        """Outside of the run folder, which comes and goes."""
        return self.cache / "cluster" / f"{self.name}.lock"

    @property
    def disks(self) -> Path:
        """The nodes' disks; on the cache's file system because /run may be memory."""
        return self.cache / "cluster" / self.name

    def node_disk(self, node: str) -> Path:
        """What a node keeps through a power cut (`kubelet`, `cni`, `log`) and through `down` (`containerd`)."""
        return self.disks / node

    def node_run(self, node: str) -> Path:
        """Configuration files of a node."""
        return self.run / node

    @property
    def cgroup(self) -> str:
        """Path below every cgroup hierarchy."""
        return self.name

    @property
    def host_device(self) -> str:
        return f"{self.name}-host"

    @property
    def network_namespace(self) -> str:
        """Of the control plane; the bridge of all nodes is in it."""
        return self.name

    def node_namespace(self, node: str) -> str:
        return f"{self.name}-{node}"


def node_names(count: int) -> list[str]:
    """n0, n1, ... Raises ClusterError."""
    if not 1 <= count <= MAX_NODES:
        raise ClusterError(f"--nodes {count}: between 1 and {MAX_NODES} nodes are possible on one machine")
    return [f"n{index}" for index in range(count)]


def node_index(node: str) -> int:
    """0 for n0. Raises ClusterError for anything that is no node name."""
    match = re.fullmatch(r"n(\d)", node)
    if not match or int(match[1]) >= MAX_NODES:
        raise ClusterError(f"{node!r} is no node of a local cluster; nodes are named n0 to n{MAX_NODES - 1}")
    return int(match[1])
