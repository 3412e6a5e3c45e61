"""Nodes and pods as the API server tells them, decoded no further than placement needs: a tenth of the memory."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec
from tandem_runtime.contracts.names import LABEL_DEPLOYMENT

from tandem_operator.api.quantity import parse_quantity
from tandem_operator.placement.capacity import Taint
from tandem_operator.placement.facts import NodeFacts, PodFacts
from tandem_operator.reconcile.world import Object

ENDED: Final = ("Succeeded", "Failed")


class Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}


class Condition(msgspec.Struct):
    type: str
    status: str


class NodeTaint(msgspec.Struct):
    key: str
    effect: str
    value: str = ""


class NodeSpec(msgspec.Struct):
    unschedulable: bool = False
    taints: list[NodeTaint] = []


class NodeStatus(msgspec.Struct):
    allocatable: dict[str, str] = {}
    conditions: list[Condition] = []


class Node(msgspec.Struct):
    metadata: Metadata
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class Resources(msgspec.Struct):
    limits: dict[str, Any] = {}
    requests: dict[str, Any] = {}


class Container(msgspec.Struct, rename="camel"):
    resources: Resources = msgspec.field(default_factory=Resources)
    restart_policy: str = ""


class PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    containers: list[Container] = []
    init_containers: list[Container] = []


class PodStatus(msgspec.Struct):
    phase: str = ""


class Pod(msgspec.Struct):
    metadata: Metadata
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class ClassMetadata(Metadata, rename="camel"):
    generation: int = 0
    annotations: dict[str, str] = {}


class ClassObject(msgspec.Struct):
    """A HardwareClass, whole but for what only the API server needs."""

    metadata: ClassMetadata
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


def class_body(item: ClassObject) -> Object:
    """As a plain dict."""
    body: Object = msgspec.to_builtins(item)
    return body


def node_facts(node: Node) -> NodeFacts:
    """A node without a Ready condition (kubelet never came) is not ready."""
    return NodeFacts(
        name=node.metadata.name,
        labels=node.metadata.labels,
        devices={name: count for name, text in node.status.allocatable.items() if (count := _extended(name, text))},
        ready=any(one.type == "Ready" and one.status == "True" for one in node.status.conditions),
        cordoned=node.spec.unschedulable,
        taints=tuple(Taint(taint.key, taint.value, taint.effect) for taint in node.spec.taints),
    )


def pod_facts(pod: Pod) -> PodFacts | None:
    """None for a pod that holds nothing: not bound yet, ended, or without extended resources."""
    if not pod.spec.node_name or pod.status.phase in ENDED:
        return None
    devices = held_devices(pod.spec)
    if not devices:
        return None
    metadata = pod.metadata
    owner = metadata.labels.get(LABEL_DEPLOYMENT, "")
    return PodFacts(
        key=pod_key(pod),
        node=pod.spec.node_name,
        devices=devices,
        owner=f"{metadata.namespace}/{owner}" if owner else "",
    )


def pod_key(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def held_devices(spec: PodSpec) -> dict[str, int]:
    """What the scheduler counts: all containers and sidecars together, or one init container if that asks for more.

    A sidecar is an init container that is restarted always: it runs beside those after it.
    """
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for container in spec.init_containers:
        asked = _asked(container)
        if container.restart_policy == "Always":
            running.update(asked)
            most |= running
        else:
            most |= running + asked
    for container in spec.containers:
        running.update(_asked(container))
    return dict(most | running)


def _asked(container: Container) -> Counter[str]:
    """Extended resources: limits and requests are equal, and either may be left out."""
    given = {**container.resources.limits, **container.resources.requests}
    return Counter({name: count for name, text in given.items() if (count := _extended(name, text))})


def _extended(name: str, text: Any) -> int:
    """Count of an extended resource (those with a domain); 0 for cpu, memory and the like, or nonsense."""
    if "/" not in name or name.startswith("kubernetes.io/"):
        return 0
    try:
        return int(parse_quantity(text))
    except ValueError:
        return 0
