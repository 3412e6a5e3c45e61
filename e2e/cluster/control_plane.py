"""etcd, API server, controller manager and scheduler in a network namespace of their own."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from e2e.cluster.api import Api, wait_until
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import SUBNETS_FILE, Layout, node_index
from e2e.cluster.network import NAMESPACES
from e2e.cluster.node_config import CLUSTER_DOMAIN
from e2e.cluster.processes import spawn, tail
from e2e.cluster.state import State

PORT = 6443
READY_SECONDS = 180.0  # 3 s on an idle machine; another job on both cores makes it ten times slower and more
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
GARBAGE = {"GOGC": "400"}  # hundreds of fake nodes are the API server's work; memory is there
CLIENTS = ("kube-controller-manager", "kube-scheduler", "kube-proxy")  # kubeconfig and certificate of each
# Who did what, for pods only: tests prove with it that the operator needs exactly the rights that it has.
AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


def write_files(layout: Layout) -> None:
    """Certificates, kubeconfigs and configuration files of the control plane."""
    from e2e.cluster.pki import Authority, Subject  # 0.2 s, which most commands need not spend

    authority, addresses = Authority(layout.pki), layout.addresses
    service = "kubernetes.default.svc"
    names = ["localhost", "kubernetes", "kubernetes.default", service, f"{service}.{CLUSTER_DOMAIN}", "127.0.0.1"]
    names += [str(addresses.api_service), str(addresses.control_plane)]
    authority.issue("kube-apiserver", Subject("kube-apiserver", names=names, client=False))
    authority.issue("kubelet-client", Subject("kube-apiserver-kubelet-client", ["system:masters"]))
    authority.issue("admin", Subject("kubernetes-admin", ["system:masters"]))
    authority.issue_token_key()
    _write_kubeconfig(layout, layout.kubeconfig, "admin")
    for name in CLIENTS:
        authority.issue(name, Subject(f"system:{name}"))
        _write_kubeconfig(layout, layout.run / f"{name}.conf", name)
    (layout.run / SUBNETS_FILE).write_text(addresses.text)
    (layout.run / "resolv.conf").write_text("")  # of pods with dnsPolicy Default: nothing outside is resolved
    (layout.run / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))
    scheduler = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": f"{layout.run}/kube-scheduler.conf", "qps": 500, "burst": 1000},
        "leaderElection": {"leaderElect": False},
    }
    (layout.run / "kube-scheduler.json").write_text(json.dumps(scheduler))


def write_node_credentials(layout: Layout, node: str) -> None:
    """Certificate (server and client) and kubeconfig of a node's kubelet."""
    from e2e.cluster.pki import Authority, Subject

    names = [node, "127.0.0.1", str(layout.addresses.node(node_index(node)))]
    Authority(layout.pki).issue(node, Subject(f"system:node:{node}", ["system:nodes"], names))
    layout.node_run(node).mkdir(parents=True, exist_ok=True)
    _write_kubeconfig(layout, layout.node_run(node) / "kubelet.conf", node)


def commands(layout: Layout) -> dict[str, list[str]]:
    """Flags of every component."""
    pki, run, addresses = layout.pki, layout.run, layout.addresses
    manager = f"{run}/kube-controller-manager.conf"
    store = "https://127.0.0.1:2379"
    flags: dict[str, dict[str, object]] = {
        "etcd": {
            "name": "local",
            "data-dir": f"{run}/etcd",
            "unsafe-no-fsync": True,  # the store dies with the cluster
            "log-level": "error",
            "listen-client-urls": store,
            "advertise-client-urls": store,
            "client-cert-auth": True,
            "trusted-ca-file": f"{pki}/ca.crt",
            "cert-file": f"{pki}/kube-apiserver.crt",
            "key-file": f"{pki}/kube-apiserver.key",
            "listen-peer-urls": "http://127.0.0.1:2380",
            "initial-advertise-peer-urls": "http://127.0.0.1:2380",
            "initial-cluster": "local=http://127.0.0.1:2380",
        },
        "kube-apiserver": {
            "etcd-servers": store,
            "etcd-cafile": f"{pki}/ca.crt",
            "etcd-certfile": f"{pki}/admin.crt",
            "etcd-keyfile": f"{pki}/admin.key",
            "advertise-address": addresses.control_plane,  # loopback is refused as an endpoint
            "secure-port": PORT,
            "tls-cert-file": f"{pki}/kube-apiserver.crt",
            "tls-private-key-file": f"{pki}/kube-apiserver.key",
            "client-ca-file": f"{pki}/ca.crt",
            "anonymous-auth": False,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-account-issuer": f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
            "service-account-key-file": f"{pki}/service-account.pub",
            "service-account-signing-key-file": f"{pki}/service-account.key",
            "service-cluster-ip-range": addresses.services,
            "allow-privileged": True,
            "profiling": False,
            "kubelet-client-certificate": f"{pki}/kubelet-client.crt",
            "kubelet-client-key": f"{pki}/kubelet-client.key",
            "kubelet-certificate-authority": f"{pki}/ca.crt",
            "kubelet-preferred-address-types": "InternalIP",
            # pods leave a lost node after 5 s instead of 5 minutes, so that tests of it take seconds
            "default-not-ready-toleration-seconds": 5,
            "default-unreachable-toleration-seconds": 5,
            "audit-policy-file": f"{run}/audit-policy.json",
            "audit-log-path": layout.audit_log,
            "audit-log-maxsize": 200,
        },
        "kube-controller-manager": {
            "kubeconfig": manager,
            "authentication-kubeconfig": manager,
            "authorization-kubeconfig": manager,
            "bind-address": "127.0.0.1",
            "use-service-account-credentials": True,
            "service-account-private-key-file": f"{pki}/service-account.key",
            "root-ca-file": f"{pki}/ca.crt",
            "cluster-signing-cert-file": f"{pki}/ca.crt",
            "cluster-signing-key-file": f"{pki}/ca.key",
            "leader-elect": False,
            "allocate-node-cidrs": False,
            "kube-api-qps": 300,
            "kube-api-burst": 600,
            "node-monitor-period": "2s",
            "node-monitor-grace-period": "16s",
        },
        "kube-scheduler": {"config": f"{run}/kube-scheduler.json", "bind-address": "127.0.0.1"},
    }
    return {component: [_flag(name, value) for name, value in flags[component].items()] for component in COMPONENTS}


def start(layout: Layout, state: State, binary: Path, *components: str) -> None:
    """Start those of `components` that do not run."""
    known = commands(layout)
    for component in components:
        if state.alive(component) is None:
            enter = ["nsenter", f"--net={NAMESPACES / layout.network_namespace}"]
            argv = [*enter, str(binary), component, *known[component]]
            state.record(component, spawn(argv, layout.logs / f"{component}.log", GARBAGE))


def client(layout: Layout) -> Api:
    pki = layout.pki
    return Api(str(layout.addresses.control_plane), PORT, pki / "ca.crt", pki / "admin.crt", pki / "admin.key")


def wait_ready(layout: Layout, state: State, api: Api) -> None:
    """Wait for the API server. Raises ClusterError, at once when it or etcd ended."""

    def holds() -> bool:
        for component in ("etcd", "kube-apiserver"):
            if state.alive(component) is None:
                raise ClusterError(f"{component} ended:\n{tail(layout.logs / f'{component}.log')}")
        return api.get("/readyz") == "ok"

    wait_until(holds, "the API server is not ready", READY_SECONDS, lambda: tail(layout.logs / "kube-apiserver.log"))


def _flag(name: str, value: object) -> str:
    return f"--{name}={str(value).lower() if isinstance(value, bool) else value}"


def _write_kubeconfig(layout: Layout, path: Path, name: str) -> None:
    """Everything is in the file, so that it can be copied; only its owner may read it."""

    def data(file: str) -> str:
        return base64.b64encode((layout.pki / file).read_bytes()).decode()

    server = f"https://{layout.addresses.control_plane}:{PORT}"
    cluster = {"server": server, "certificate-authority-data": data("ca.crt")}
    user = {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": layout.name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": layout.name, "context": {"cluster": layout.name, "user": name}}],
        "current-context": layout.name,
    }
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(config, file, indent=1)
