"""A real Kubernetes on this machine without Docker: real control plane, real kubelets on containerd.

`up` is a list of steps, each of which does nothing when it is done already; a state that was not completed is
removed and made again.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from e2e.cluster import build, cgroups, control_plane, dns, doctor, locks, network
from e2e.cluster.api import wait_until
from e2e.cluster.backend import Cluster, Report, print_report
from e2e.cluster.errors import ClusterError
from e2e.cluster.images import built_archive, load_everywhere
from e2e.cluster.layout import Layout, node_names
from e2e.cluster.network import NAMESPACES
from e2e.cluster.node import Node, cut_power, wipe_disk
from e2e.cluster.processes import find_in_network
from e2e.cluster.state import State

ACCOUNT_SECONDS = 60.0


class LocalCluster(Cluster):
    """`nodes` machines named n0, n1, ... on this one."""

    kind = "local"

    def __init__(self, layout: Layout, nodes: int = 1, yes: bool = False, report: Report = print_report) -> None:
        super().__init__(layout.name, report)
        self.layout, self.yes = layout, yes
        self._wanted = node_names(nodes)
        self.audit_log = layout.audit_log

    @property
    def kubeconfig(self) -> Path:
        return self.layout.kubeconfig

    def up(self) -> None:
        doctor.need_root()
        doctor.install_missing(self.yes, self.report)
        doctor.need_disk(self.layout.disks)
        with locks.hold(self.layout.lock, self.report):
            binary = build.build(build.KUBERNETES, self.report)
            archives = [built_archive(program, self.report) for program in (build.PAUSE, build.COREDNS)]
            state = State.load(self.layout.run)
            if state is not None and not state.complete:
                self.report("an earlier up did not end; removing what it left")
                self._remove(state)
                state = None
            if state is None:
                self._remove(None)  # what lies about without a state, for example a namespace
                network.check_free(self.layout)
                state = self._create()
            elif self._is_up(state):
                self.report(f"cluster {self.name} is up with {len(state.nodes)} nodes; nothing to do")
                return
            state.complete = False
            self._converge(state, binary, archives)
            state.complete = True
            state.save()
        self.report(f"cluster {self.name} is up: {', '.join(state.nodes)} Ready")

    def down(self) -> None:
        doctor.need_root()
        with locks.hold(self.layout.lock, self.report):
            state = State.load(self.layout.run)
            self._remove(state)
        self.report(f"cluster {self.name} is {'down' if state else 'not there; nothing to do'}")

    def load_image(self, name: str, archive: Path) -> None:
        nodes = [node for node in self._nodes(self._running()) if node.is_on]
        loaded = load_everywhere(nodes, name, archive)
        if loaded:
            self.report(f"image {name} loaded on {', '.join(loaded)}")

    def status(self) -> tuple[bool, str]:
        state = State.load(self.layout.run)
        if state is None:
            return False, f"cluster {self.name} is down"
        ready = set(control_plane.client(self.layout).ready_nodes()) if state.complete else set()
        lines = [f"cluster {self.name}, kubeconfig {self.kubeconfig}"]
        lines += [f"  {name:24} {'runs' if state.alive(name) else 'ended'}" for name in control_plane.COMPONENTS]
        lines += [f"  {node:24} {self._describe(state, node, ready)}" for node in state.nodes]
        if not state.complete:
            lines.append("  an up did not end; `up` repairs it, `down` removes it")
        return state.complete and self._is_healthy(state), "\n".join(lines)

    def power_off(self, node: str) -> None:
        state = self._running()
        with locks.hold(self.layout.lock, self.report):
            self._node(state, node).power_off()
            if others := [other for other in self._nodes(state) if other.is_on]:
                network.route_services(self.layout, others[0].name)

    def power_on(self, node: str) -> None:
        state = self._running()
        with locks.hold(self.layout.lock, self.report):
            self._node(state, node)
            self._start_node(state, node, self._binary())
            self._node(state, node).wait_ready(control_plane.client(self.layout), self._binary())

    def kill_agents(self, node: str) -> None:
        self._node(self._running(), node).kill_agents()

    def restart_agents(self, node: str) -> None:
        chosen = self._node(self._running(), node)
        chosen.start_containerd()
        chosen.start_agents(self._binary())
        chosen.wait_ready(control_plane.client(self.layout), self._binary())

    def kubectl_program(self) -> Path:
        """The one that was built with this Kubernetes, under its own name."""
        binary = self._binary()
        program = binary.with_name("kubectl")
        if not program.exists():
            program.symlink_to(binary.name)
        return program

    def helm_program(self) -> Path:
        return build.build(build.HELM, self.report)

    def environment(self) -> dict[str, str]:
        addresses, homes = self.layout.addresses, self.layout.run / "helm"
        direct = [os.environ.get("NO_PROXY", ""), *map(str, (addresses.machines, addresses.pods, addresses.services))]
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "NO_PROXY": ",".join(part for part in direct if part),
            **{f"HELM_{kind}_HOME": str(homes / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")},
        }

    def _create(self) -> State:
        state = State.create(self.layout.run)
        control_plane.write_files(self.layout)
        network.create(self.layout)
        return state

    def _converge(self, state: State, binary: Path, archives: list[tuple[str, Path]]) -> None:
        """Start what does not run, add and remove nodes, wait until everything is ready."""
        layout, api = self.layout, control_plane.client(self.layout)
        state.nodes = sorted({*state.nodes, *self._wanted})
        state.save()
        control_plane.start(layout, state, binary, "etcd", "kube-apiserver")

        def prepare(node: str) -> None:
            self._power(state, node)
            for name, archive in archives:
                load_everywhere([Node(layout, state, node)], name, archive)

        with ThreadPoolExecutor(max_workers=len(self._wanted)) as pool:
            prepared = pool.map(prepare, self._wanted)  # meanwhile the API server starts
            control_plane.wait_ready(layout, state, api)
            self.report("API server ready")
            control_plane.start(layout, state, binary, "kube-controller-manager", "kube-scheduler")
            list(prepared)  # raises what went wrong
        for node in self._wanted:
            Node(layout, state, node).start_agents(binary)
        self._remove_surplus(state)
        network.route_services(layout, self._wanted[0])
        dns.apply(api, layout.addresses.dns_service, len(self._wanted))
        for node in self._wanted:
            Node(layout, state, node).wait_ready(api, binary)
        self.report(f"nodes Ready: {', '.join(self._wanted)}")
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_until(lambda: api.get(account) is not None, "no default ServiceAccount", ACCOUNT_SECONDS)
        dns.wait_ready(api)

    def _power(self, state: State, node: str) -> None:
        """Network, namespaces and containerd of a node, new unless they are there."""
        machine = Node(self.layout, state, node)
        if not machine.is_on:
            machine.power_off()  # what a half-started one left
            network.add_node(self.layout, node, state.nodes)
            machine.boot()
        machine.start_containerd()

    def _start_node(self, state: State, node: str, binary: Path) -> None:
        self._power(state, node)
        Node(self.layout, state, node).start_agents(binary)

    def _remove_surplus(self, state: State) -> None:
        for node in [node for node in state.nodes if node not in self._wanted]:
            self.report(f"removing node {node}")
            Node(self.layout, state, node).power_off()
            self.kubectl("delete", "node", node, "--ignore-not-found")
            wipe_disk(self.layout, node)
            for name in state.of_node(node):
                del state.processes[name]
            state.nodes.remove(node)
            state.save()

    def _remove(self, state: State | None) -> None:
        """Everything, whether `up` recorded it or was killed before it could."""
        cut_power(state.processes.values() if state else [])
        own = [self.layout.network_namespace, *map(self.layout.node_namespace, node_names(9))]
        cut_power(process for name in own for process in find_in_network(NAMESPACES / name))
        network.destroy(self.layout)
        cgroups.remove(self.layout.cgroup)
        shutil.rmtree(self.layout.run, ignore_errors=True)
        for disk in self.layout.disks.glob("n?"):
            wipe_disk(self.layout, disk.name)

    def _is_healthy(self, state: State) -> bool:
        agents = [name for name in state.processes if not name.endswith("wrapper")]
        if not all(state.alive(name) for name in agents):
            return False
        return set(state.nodes) <= set(control_plane.client(self.layout).ready_nodes())

    def _is_up(self, state: State) -> bool:
        if state.nodes != self._wanted:
            self.report(f"cluster {self.name} has {len(state.nodes)} nodes; changing it to {len(self._wanted)}")
            return False
        if not self._is_healthy(state):
            self.report("parts of the cluster ended; starting them again")
            return False
        return True

    def _describe(self, state: State, node: str, ready: set[str]) -> str:
        if not Node(self.layout, state, node).is_on:
            return "no power"
        ended = [name for name in state.of_node(node) if not name.endswith("wrapper") and not state.alive(name)]
        return ("Ready" if node in ready else "not Ready") + (f" ({', '.join(ended)} ended)" if ended else "")

    def _running(self) -> State:
        state = State.load(self.layout.run)
        if state is None or not state.complete:
            raise ClusterError(f"cluster {self.name} is not up; `e2e/cluster/run up` brings it up")
        return state

    def _node(self, state: State, node: str) -> Node:
        if node not in state.nodes:
            raise ClusterError(f"cluster {self.name} has no node {node!r}; it has {', '.join(state.nodes)}")
        return Node(self.layout, state, node)

    def _nodes(self, state: State) -> list[Node]:
        return [Node(self.layout, state, node) for node in state.nodes]

    def _binary(self) -> Path:
        return build.build(build.KUBERNETES, self.report)
