"""A network of one's own: a bridge in a namespace of the benchmark, and for each pod a namespace on a veth cable.

`enter` starts the program again inside; without the right to do that the pods stand behind proxies instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Final

INSIDE: Final = "TANDEM_CHAOS_INSIDE"
"""Set in the environment of the program inside the namespace."""
HUB: Final = "10.77.0.1"
BRIDGE: Final = "chaos"
PROBE: Final = f"ip link set lo up && ip link add {BRIDGE} type bridge && ip addr add {HUB}/16 dev {BRIDGE}"


def enter() -> None:
    """Replaces this process by one in a network namespace; returns where that is not possible, or done already."""
    if INSIDE in os.environ or not all(shutil.which(tool) for tool in ("unshare", "nsenter", "ip", "sleep")):
        return
    for unshare in (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"]):
        if subprocess.run([*unshare, "sh", "-c", PROBE], capture_output=True, check=False).returncode == 0:
            command = [*unshare, sys.executable, *sys.orig_argv[1:]]
            os.execvpe(command[0], command, os.environ | {INSIDE: "1"})


def inside() -> bool:
    """Whether cables can be laid."""
    return INSIDE in os.environ


def lay_bridge() -> None:
    """Once, inside."""
    _run(f"{PROBE} && ip link set {BRIDGE} up")


def add_address(address: str) -> None:
    """One more of the benchmark itself, where it listens for pods."""
    _run(f"ip addr add {address}/32 dev {BRIDGE}")


class Cable:
    """The network of one pod: a namespace with `address`, held by a sleeping process, and a cable to the bridge."""

    def __init__(self, name: str, address: str) -> None:
        self.address = address
        self._name = name
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        self._wait_for_namespace()
        self._link = f"v{name}"[:15]
        enter_it = f"nsenter --target {self._holder.pid} --net"
        _run(
            f"ip link add {self._link} type veth peer name eth0 netns {self._holder.pid}"
            f" && ip link set {self._link} master {BRIDGE} up"
            f" && {enter_it} ip addr add {address}/16 dev eth0"
            f" && {enter_it} ip link set eth0 up && {enter_it} ip link set lo up"
        )

    def _wait_for_namespace(self) -> None:
        own = os.readlink("/proc/self/ns/net")
        for _ in range(2000):
            if os.readlink(f"/proc/{self._holder.pid}/ns/net") != own:
                return
            subprocess.run(["sleep", "0.005"], check=True)
        raise RuntimeError(f"no namespace for {self._name} within 10 s")

    def command(self) -> list[str]:
        """What runs a program inside."""
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--"]

    def cut(self) -> None:
        """Both ends still have a link, and nothing comes through: what a broken switch looks like."""
        _run(f"ip link set {self._link} nomaster")

    def mend(self) -> None:
        """Plugs it in again."""
        _run(f"ip link set {self._link} master {BRIDGE}")

    def close(self) -> None:
        """The namespace goes with its last process."""
        self._holder.kill()
        self._holder.wait()


def _run(script: str) -> None:
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script}: {done.stderr.strip()}")
