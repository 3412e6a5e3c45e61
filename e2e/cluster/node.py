"""One node: a first process that holds its mount, process and name namespaces, and the three agents inside of them.

SIGKILL to the first process is a power cut: every container and mount of the node is gone at once.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from e2e.cluster import cgroups, control_plane, network, node_config
from e2e.cluster.api import Api, is_ready, wait_until
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout
from e2e.cluster.processes import Identity, find_child, kill, run, spawn, started_at, tail, wait_gone
from e2e.cluster.state import State

START_SECONDS = 60.0
READY_SECONDS = 180.0
KUBELET_RESTARTS, KUBELET_RESTART_SECONDS = 10, 1.0
INIT = "init"
CONTAINERD, KUBELET, PROXY = "containerd", "kubelet", "kube-proxy"
MAX_STORE_BYTES = 6 << 30  # of image layers per node; beyond it the old ones are thrown away at the next start


class Node:
    """The node `name` of a local cluster. What runs is recorded in `state` as "n0/kubelet"."""

    def __init__(self, layout: Layout, state: State, name: str) -> None:
        self.layout, self.state, self.name = layout, state, name

    @property
    def init(self) -> Identity:
        """The first process, as the host sees it. Raises ClusterError when the node is off."""
        process = self.state.alive(f"{self.name}/{INIT}")
        if process is None:
            raise ClusterError(f"node {self.name} has no power; `power_on` starts it")
        return process

    @property
    def is_on(self) -> bool:
        return self.state.alive(f"{self.name}/{INIT}") is not None

    def boot(self) -> None:
        """Power on: control group, disk, namespaces. The network must be there."""
        disk, folder = self.layout.node_disk(self.name), self.layout.node_run(self.name)
        for _, part in node_config.OWN_FOLDERS:
            (disk / part).mkdir(parents=True, exist_ok=True)
        for place in (*[place for place, _ in node_config.OWN_FOLDERS], *node_config.OWN_MEMORY):
            Path(place).mkdir(parents=True, exist_ok=True)  # mount points; they stay, as a package's would
        cgroups.create(f"{self.layout.cgroup}/{self.name}")
        control_plane.write_node_credentials(self.layout, self.name)
        node_config.write_files(self.layout, self.name)
        ready_file = folder / "booted"
        ready_file.unlink(missing_ok=True)
        log = self.layout.logs / f"{self.name}-{INIT}.log"
        namespace = network.NAMESPACES / self.layout.node_namespace(self.name)
        program = node_config.first_process(self.layout, self.name, str(ready_file))
        own = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
        wrapper = spawn(["nsenter", f"--net={namespace}", *own, "bash", "-c", program], log)
        self.state.record(f"{self.name}/wrapper", wrapper)
        self.state.record(f"{self.name}/{INIT}", find_child(wrapper))
        wait_until(lambda: ready_file.exists() or not self.is_on, f"node {self.name} did not boot", START_SECONDS)
        if not self.is_on:
            raise ClusterError(f"node {self.name} ended while booting:\n{tail(log)}")

    def start_containerd(self) -> None:
        """Start it when it does not run, and wait until it answers."""
        self._start(CONTAINERD, "containerd", "--config", f"{self.layout.node_run(self.name)}/containerd.toml")
        socket = Path(f"/proc/{self.init.pid}/root{node_config.SOCKET}")

        def answers() -> bool:
            if self.state.alive(f"{self.name}/{CONTAINERD}") is None:
                raise ClusterError(f"containerd of {self.name} ended:\n{self._tail(CONTAINERD)}")
            return socket.exists() and bool(self.execute("ctr", "version", check=False))

        wait_until(answers, f"containerd of {self.name} does not answer", START_SECONDS, lambda: self._tail(CONTAINERD))

    def start_agents(self, binary: Path) -> None:
        """Start kubelet and kube-proxy when they do not run."""
        self._start(KUBELET, str(binary), "kubelet", *node_config.kubelet_flags(self.layout, self.name))
        config = self.layout.node_run(self.name) / "kube-proxy.json"
        self._start(PROXY, str(binary), "kube-proxy", f"--config={config}")

    def wait_ready(self, api: Api, binary: Path) -> None:
        """Until the API server calls the node Ready. A kubelet that ends is started again, as systemd would: containerd
        answers before it has found its old containers, and until then it turns a kubelet away. Raises ClusterError."""
        restarts = 0

        def holds() -> bool:
            nonlocal restarts
            if self.state.alive(f"{self.name}/{KUBELET}") is None:
                if restarts == KUBELET_RESTARTS:
                    raise ClusterError(f"the kubelet of {self.name} ended {restarts + 1} times:\n{self._tail(KUBELET)}")
                restarts += 1
                time.sleep(KUBELET_RESTART_SECONDS)
                self.start_agents(binary)
            started = started_at(self.state.processes[f"{self.name}/{KUBELET}"])
            return is_ready(api.get_json(f"/api/v1/nodes/{self.name}") or {}, since=started)

        wait_until(holds, f"node {self.name} is not Ready", READY_SECONDS, lambda: self._tail(KUBELET))

    def kill_agents(self) -> list[str]:
        """SIGKILL to kubelet and containerd; containers go on running. Returns what was killed."""
        names = [f"{self.name}/{agent}" for agent in (KUBELET, CONTAINERD)]
        alive = {name: process for name in names if (process := self.state.alive(name))}
        kill(alive.values())
        wait_gone(alive.values())
        return list(alive)

    def power_off(self) -> None:
        """End everything of the node at once."""
        cut_power(self.state.of_node(self.name).values())
        network.remove_node(self.layout, self.name)
        cgroups.remove(f"{self.layout.cgroup}/{self.name}")

    def execute(self, *command: str, check: bool = True) -> str:
        """Run a command on the node; return what it printed."""
        return run([*self.enter(), *command], check=check)

    def enter(self) -> list[str]:
        """Put in front of a command, this runs it on the node."""
        return ["nsenter", f"--target={self.init.pid}", "--mount", "--pid", "--uts", "--net"]

    def _start(self, agent: str, *command: str) -> None:
        name = f"{self.name}/{agent}"
        if self.state.alive(name) is None:
            wrapper = spawn([*self.enter(), *command], self.layout.logs / f"{self.name}-{agent}.log")
            # nsenter forks into the process namespace and waits: the agent is its child
            self.state.record(f"{name}-wrapper", wrapper)
            self.state.record(name, find_child(wrapper))

    def _tail(self, agent: str) -> str:
        return tail(self.layout.logs / f"{self.name}-{agent}.log")


def cut_power(processes: Iterable[Identity]) -> None:
    """SIGKILL, first processes included, and wait until all are gone."""
    listed = list(processes)
    kill(listed)
    wait_gone(listed)


def wipe_disk(layout: Layout, node: str) -> None:
    """Make the node's disk new, except for the images, which are kept unless they grew too large."""
    disk = layout.node_disk(node)
    blobs = disk / "containerd" / "io.containerd.content.v1.content" / "blobs" / "sha256"
    stored_bytes = 0
    with suppress(FileNotFoundError):
        stored_bytes = sum(entry.stat().st_size for entry in os.scandir(blobs))
    for part in [part for _, part in node_config.OWN_FOLDERS if part != "containerd"]:
        shutil.rmtree(disk / part, ignore_errors=True)
    if stored_bytes > MAX_STORE_BYTES:
        shutil.rmtree(disk / "containerd", ignore_errors=True)
