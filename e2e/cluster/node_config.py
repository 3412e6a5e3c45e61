"""Configuration files of one node: containerd, network plugin, kubelet, kube-proxy and the first process."""

from __future__ import annotations

import json
from typing import Any

from e2e.cluster.layout import Layout, node_index

PAUSE_IMAGE = "localhost/pause:dev"
CLUSTER_DOMAIN = "cluster.local"
PLUGINS = "/usr/lib/cni"  # where Debian puts containernetworking-plugins
SOCKET = "/run/containerd/containerd.sock"
# Folders that every node has for itself although all see the same file system: (place on the node, part of its disk).
OWN_FOLDERS = (
    ("/var/lib/kubelet", "kubelet"),  # the kubelet hard-codes device-plugins below it
    ("/var/lib/cni", "cni"),
    ("/var/lib/containerd", "containerd"),
    ("/var/log", "log"),
)
OWN_MEMORY = ("/run/containerd", "/run/netns")  # empty after a power cut


def containerd_config(layout: Layout, node: str) -> str:
    """TOML. Negative OOM scores are refused without CAP_SYS_RESOURCE, so none is asked for."""
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{layout.node_run(node)}/cni"
"""


def network_config(layout: Layout, node: str) -> dict[str, Any]:
    """A bridge without masquerading: pods of other nodes and NetworkPolicies see a pod's own address."""
    ranges = [[{"subnet": str(layout.addresses.node_pods(node_index(node)))}]]
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": layout.name, "plugins": [bridge, portmap]}


def kubelet_config(layout: Layout, node: str) -> dict[str, Any]:
    """A kubelet that leaves the machine's disk alone: no eviction by disk, no image is ever collected."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / f"{node}.crt"),
        "tlsPrivateKeyFile": str(layout.pki / f"{node}.key"),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}/{node}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "resolvConf": str(layout.run / "resolv.conf"),
        "clusterDNS": [str(layout.addresses.dns_service)],
        "clusterDomain": CLUSTER_DOMAIN,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "4s",  # four reports within the controller manager's grace period
    }


def proxy_config(layout: Layout, node: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": str(layout.addresses.pods),
        "hostnameOverride": node,
        "clientConnection": {"kubeconfig": str(layout.run / "kube-proxy.conf")},
        "conntrack": {"maxPerCore": 0, "min": 0},  # the limits belong to the host, not to a namespace
    }


def kubelet_flags(layout: Layout, node: str) -> list[str]:
    index = node_index(node)
    return [
        f"--config={layout.node_run(node)}/kubelet.json",
        f"--kubeconfig={layout.node_run(node)}/kubelet.conf",
        f"--hostname-override={node}",
        f"--node-ip={layout.addresses.node(index)}",
        f"--node-labels=topology.kubernetes.io/zone=z{index}",
    ]


def first_process(layout: Layout, node: str, ready_file: str) -> str:
    """Bash program of the node's pid 1: makes the node's own folders, then waits and reaps until it is killed."""
    disk = layout.node_disk(node)
    return "\n".join(
        [
            "set -e",
            "mount --make-rshared /",
            *[f"mount --bind '{disk}/{part}' {place}" for place, part in OWN_FOLDERS],
            *[f"mount -t tmpfs -o mode=711 tmpfs {place}" for place in OWN_MEMORY],
            f"hostname {node}",
            f"touch '{ready_file}'",
            "trap 'exit 0' TERM",
            "sleep infinity & while :; do wait -n || :; done",
        ]
    )


def write_files(layout: Layout, node: str) -> None:
    """Write all of them below the node's run folder."""
    folder = layout.node_run(node)
    (folder / "cni").mkdir(parents=True, exist_ok=True)
    (folder / "containerd.toml").write_text(containerd_config(layout, node))
    (folder / "cni" / "10-bridge.conflist").write_text(json.dumps(network_config(layout, node)))
    (folder / "kubelet.json").write_text(json.dumps(kubelet_config(layout, node)))
    (folder / "kube-proxy.json").write_text(json.dumps(proxy_config(layout, node)))
