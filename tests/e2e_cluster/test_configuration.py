from __future__ import annotations

import json
import subprocess
import tomllib
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml

from e2e.cluster import control_plane, dns, node_config
from e2e.cluster.api import is_ready
from e2e.cluster.errors import ClusterError
from e2e.cluster.images import load_everywhere, parse_images
from e2e.cluster.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout("tandem", cache=tmp_path / "cache", runs=tmp_path / "runs")


def test_every_file_that_a_flag_names_is_written(layout: Layout) -> None:
    control_plane.write_files(layout)
    made_at_run_time = {layout.run / "etcd", layout.audit_log}
    for flags in control_plane.commands(layout).values():
        for flag in flags:
            value = flag.partition("=")[2]
            if value.startswith(str(layout.run)):
                assert Path(value).exists() or Path(value) in made_at_run_time, flag


def test_a_kubeconfig_stands_alone_and_is_private(layout: Layout) -> None:
    control_plane.write_files(layout)
    config = json.loads(layout.kubeconfig.read_text())
    assert str(layout.run) not in layout.kubeconfig.read_text()
    assert config["clusters"][0]["cluster"]["server"] == "https://10.20.0.2:6443"
    assert layout.kubeconfig.stat().st_mode & 0o077 == 0


def test_nodes_differ_in_everything_that_would_collide(layout: Layout) -> None:
    configs = [node_config.kubelet_config(layout, node) for node in ("n0", "n1")]
    assert configs[0]["cgroupRoot"] == "/tandem/n0"
    assert configs[1]["cgroupRoot"] == "/tandem/n1"
    networks = [json.dumps(node_config.network_config(layout, node)) for node in ("n0", "n1")]
    assert "10.245.0.0/24" in networks[0]
    assert "10.245.1.0/24" in networks[1]
    assert "--node-ip=10.20.0.11" in node_config.kubelet_flags(layout, "n1")


def test_the_files_of_a_node_can_be_parsed(layout: Layout) -> None:
    node_config.write_files(layout, "n0")
    folder = layout.node_run("n0")
    containerd = tomllib.loads((folder / "containerd.toml").read_text())
    assert containerd["plugins"]["io.containerd.grpc.v1.cri"]["sandbox_image"] == node_config.PAUSE_IMAGE
    for name in ("kubelet.json", "kube-proxy.json", "cni/10-bridge.conflist"):
        json.loads((folder / name).read_text())
    program = node_config.first_process(layout, "n0", "/ready file")
    subprocess.run(["bash", "-n", "-c", program], check=True)


def test_the_audit_log_shows_pods_but_not_the_control_plane() -> None:
    levels = [(rule["level"], rule.get("userGroups")) for rule in control_plane.AUDIT_POLICY["rules"]]
    assert levels == [
        ("None", ["system:serviceaccounts:kube-system"]),
        ("Metadata", ["system:serviceaccounts"]),
        ("None", None),
    ]


@pytest.mark.parametrize(("nodes", "replicas"), [(1, 1), (2, 2), (3, 2)])
def test_dns_survives_the_loss_of_a_node_when_there_are_two(nodes: int, replicas: int) -> None:
    documents = {one["kind"]: one for one in yaml.safe_load_all(dns.render(IPv4Address("10.97.0.10"), nodes))}
    assert documents["Deployment"]["spec"]["replicas"] == replicas
    assert documents["Service"]["spec"]["clusterIP"] == "10.97.0.10"


def test_objects_of_the_manifest_have_the_paths_of_the_api() -> None:
    paths = [dns.object_path(one) for one in yaml.safe_load_all(dns.render(IPv4Address("10.97.0.10"), 1))]
    assert "/apis/rbac.authorization.k8s.io/v1/clusterroles/tandem-local:coredns" in paths
    assert "/api/v1/namespaces/kube-system/configmaps/coredns" in paths
    assert dns.DEPLOYMENT in paths


def test_only_a_heartbeat_after_the_start_proves_a_node_ready() -> None:
    condition = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:10Z"}
    node = {"status": {"conditions": [condition]}}
    at = 1767225610.0  # the heartbeat
    assert is_ready(node, since=at + 0.7)
    assert not is_ready(node, since=at + 1.2)
    assert not is_ready({"status": {"conditions": [{**condition, "status": "Unknown"}]}})
    assert not is_ready({})


def test_image_names_and_digests_are_read_from_the_listing() -> None:
    listing = "REF TYPE DIGEST SIZE PLATFORMS LABELS\nlocalhost/a:dev application/x sha256:1 1.0 MiB linux/amd64 -\n"
    assert parse_images(listing) == {"localhost/a:dev": "sha256:1"}
    assert parse_images("") == {}


def test_a_missing_or_wrong_archive_is_refused_before_any_node_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="build it first"):
        load_everywhere([], "localhost/a:dev", tmp_path / "none.tar")
