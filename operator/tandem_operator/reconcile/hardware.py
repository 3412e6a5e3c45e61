"""What is told about hardware classes: status of each, and devices that no class claims. Pure, but for the reporter."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from tandem_operator.api import names
from tandem_operator.api.hardware_class import KIND, LABEL_HARDWARE_CLASS
from tandem_operator.placement.capacity import ClassCapacity
from tandem_operator.placement.facts import Stranger
from tandem_operator.placement.inventory import Inventory
from tandem_operator.reconcile.world import Cluster, Notice, Object

AVAILABLE: Final = "Available"
CONSISTENT: Final = "Consistent"
USUAL_ARCHITECTURE: Final = "amd64"
"""Of hosts; GH200, GB200 and GB300 are arm64."""

log = logging.getLogger(__name__)

Statement = tuple[str, str, str, str]
"""type, status, reason, message."""


def available(name: str, capacity: ClassCapacity, parts: list[Stranger]) -> Statement:
    """Whether there are nodes, and what of them can be had."""
    if not capacity.nodes:
        if capacity.creatable_nodes:
            count = f"{capacity.creatable_nodes} of {capacity.creatable_devices} devices"
            return AVAILABLE, "True", "NodesCreatable", f"no node yet; a node autoscaler may add {count}"
        how = f"label nodes that are {LABEL_HARDWARE_CLASS}: {name}"
        create = "set autoscaling.maxNodes if a node autoscaler adds them"
        return AVAILABLE, "False", "NoNodes", f"no node is recognised as this class; {how}, or {create}"
    whole = capacity.largest_node
    sentence = f"{_count(capacity.nodes, 'node')}, {_count(capacity.devices, 'device')}, {capacity.free} free"
    if out := [
        f"{count} {word}"
        for count, word in ((capacity.cordoned_nodes, "cordoned"), (capacity.unready_nodes, "not ready"))
        if count
    ]:
        sentence += f"; nodes {' and '.join(out)}"
    if whole:
        sentence += f"; {capacity.fragmentation(whole)}"
    if foreign := [one for one in capacity.architectures if one != USUAL_ARCHITECTURE]:
        sentence += f"; {' and '.join(foreign)} hosts: images must be built for them"
    for part in parts:
        sentence += f"; {_count(part.nodes, 'node')} with parts that do not count ({part.product})"
    return AVAILABLE, "True", "NodesFound", sentence


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def consistent(contradicting: list[Stranger], rival: str) -> Statement:
    """Whether nodes that name the class also are what it says, and no other class claims them."""
    if rival:
        message = f"{rival}, which goes first; take the value out of the match of one of the two"
        return CONSISTENT, "False", "ClaimedTwice", message
    if not contradicting:
        return CONSISTENT, "True", "NothingContradicts", "every node that names this class is what it says"
    count = sum(one.nodes for one in contradicting)
    first = contradicting[0]
    message = f"{_count(count, 'node')} not taken, {first.example} for one: {first.reason}"
    return CONSISTENT, "False", "NodesContradict", message


def invalid(message: str) -> Statement:
    """A class that cannot be read is no class."""
    return AVAILABLE, "False", "InvalidSpec", f"{message}; no node is recognised until this is changed"


def status_of(
    body: Object, capacity: ClassCapacity, strangers: list[Stranger], problem: str, now: datetime, rival: str = ""
) -> dict[str, Any]:
    """The status of a class; conditions keep the time of their last change. `rival`: a class that goes before."""
    name = body["metadata"]["name"]
    mine = [one for one in strangers if one.hardware_class == name]
    contradicting = [one for one in mine if one.verdict == "Contradicted"]
    parts = [one for one in mine if one.verdict != "Contradicted"]
    statements = [invalid(problem)] if problem else [available(name, capacity, parts), consistent(contradicting, rival)]
    generation = body["metadata"].get("generation", 0)
    before = {one["type"]: one for one in (body.get("status") or {}).get("conditions") or []}
    return {
        "observedGeneration": generation,
        "nodes": capacity.nodes,
        "devices": capacity.devices,
        "free": capacity.free,
        "stranded": capacity.stranded,
        "shapes": [
            {"devices": cut.devices, "replicas": cut.replicas, "stranded": cut.stranded}
            for cut in map(capacity.fragmentation, capacity.shapes[-16:])
        ],
        "conditions": [_condition(statement, before, generation, now) for statement in statements],
    }


def _condition(statement: Statement, before: Mapping[str, Any], generation: int, now: datetime) -> dict[str, Any]:
    kind, status, reason, message = statement
    old = before.get(kind, {})
    since = old.get("lastTransitionTime") if old.get("status") == status else None
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since or now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "observedGeneration": generation,
    }


class HardwareReporter:
    """Writes what has changed since it last wrote: two operators that see different pods do not fight."""

    def __init__(self, cluster: Cluster, inventory: Inventory, now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._now = now
        self._written: dict[str, Object] = {}
        self._seen: dict[tuple[str, str, str], datetime] = {}
        self._told: set[tuple[str, str, str]] = set()

    async def report(self, bodies: Mapping[str, Object], problems: Mapping[str, str]) -> None:
        """`bodies` by name, as read last; `problems`: why a class cannot be read. Raises ApiError."""
        strangers = self._inventory.strangers()
        for name, body in bodies.items():
            capacity = self._inventory.capacity(name)
            # What this instance wrote goes before what it read: the watch may be behind.
            known = {**body, "status": self._written.get(name) or body.get("status")}
            rival = self._inventory.rivals.get(name, "")
            status = status_of(known, capacity, strangers, problems.get(name, ""), self._now(), rival)
            if status == known["status"]:
                self._written[name] = status
                continue
            metadata = {"name": name}
            await self._cluster.apply_status(
                {"apiVersion": names.API_VERSION, "kind": KIND, "metadata": metadata, "status": status}
            )
            self._written[name] = status
        for name in self._written.keys() - bodies.keys():
            del self._written[name]

    async def tell_strangers(self, patience_seconds: float) -> None:
        """One Event and one line in the log for each kind of device that no class has claimed for so long."""
        now = self._now()
        current = {(one.product, one.resource, one.verdict): one for one in self._inventory.strangers()}
        self._seen = {key: self._seen.get(key, now) for key in current}
        self._told &= current.keys()
        for key in sorted(current.keys() - self._told):
            if (now - self._seen[key]).total_seconds() < patience_seconds:
                continue
            one = current[key]
            self._told.add(key)
            count = f"{_count(one.nodes, 'node')} with {_count(one.devices, 'device')}"
            log.warning("%s are not used: %s; template:\n%s", count, one.reason, one.template)
            note = one.reason if one.verdict == "Contradicted" else f"{one.reason}\n---\n{one.template}"
            regarding = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": one.example, "uid": one.example}}
            await self._cluster.notify(regarding, Notice("Warning", f"Hardware{one.verdict}", "Recognize", note))
