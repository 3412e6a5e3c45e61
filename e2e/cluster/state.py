"""What is running, written to the run folder after every step, so that any later command can repair or remove it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.processes import Identity, is_alive

FILE = "state.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass
class State:
    """`complete` is set when `up` ended well; `boot` names the run of the machine to which the pids belong."""

    folder: Path
    boot: str
    complete: bool = False
    nodes: list[str] = field(default_factory=list)
    processes: dict[str, Identity] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def load(cls, folder: Path) -> State | None:
        """None when there is no cluster. A damaged file or one from before a restart gives an incomplete state."""
        boot = BOOT_ID.read_text().strip()
        if not folder.is_dir():
            return None
        try:
            stored = json.loads((folder / FILE).read_text())
            if stored["boot"] != boot:
                return cls(folder, boot)
            processes = {name: Identity(*pair) for name, pair in stored["processes"].items()}
            return cls(folder, boot, bool(stored["complete"]), list(stored["nodes"]), processes)
        except (OSError, ValueError, KeyError, TypeError):
            return cls(folder, boot)

    @classmethod
    def create(cls, folder: Path) -> State:
        folder.mkdir(parents=True, mode=0o755)
        state = cls(folder, BOOT_ID.read_text().strip())
        state.save()
        return state

    def save(self) -> None:
        with self._lock:
            stored = {
                "boot": self.boot,
                "complete": self.complete,
                "nodes": self.nodes,
                "processes": self.processes,
            }
            temporary = self.folder / f".{FILE}"
            temporary.write_text(json.dumps(stored, indent=1))
            temporary.replace(self.folder / FILE)

    def record(self, name: str, process: Identity) -> None:
        self.processes[name] = process
        self.save()

    def alive(self, name: str) -> Identity | None:
        """The process recorded under `name` if it still runs."""
        process = self.processes.get(name)
        return process if process is not None and is_alive(process) else None

    def of_node(self, node: str) -> dict[str, Identity]:
        """Processes of one node, by full name ("n0/kubelet")."""
        return {name: process for name, process in self.processes.items() if name.startswith(f"{node}/")}
