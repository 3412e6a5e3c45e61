"""One look at what a cluster has, for a person at a terminal: everything is listed once."""

from __future__ import annotations

import os
from typing import Any

from tandem_operator.api.hardware_class import KIND, HardwareClass, parse_hardware_class
from tandem_operator.cluster.client import KubernetesClient, in_cluster, load_configuration
from tandem_operator.cluster.feed import Feed, Source, read_once
from tandem_operator.cluster.hardware import BOUND_PODS
from tandem_operator.cluster.objects import ClassObject, Node, Pod, class_body, node_facts, pod_facts
from tandem_operator.placement.catalogue import hardware_of
from tandem_operator.placement.inventory import Inventory
from tandem_operator.reconcile.errors import ApiError


class Unread(Exception):
    """One sentence for the person."""


async def survey_cluster() -> tuple[Inventory, dict[str, str]]:
    """The cluster of $KUBECONFIG: what it has, and why a class cannot be used, by name. Raises Unread."""
    if not in_cluster() and not any(map(os.path.exists, files := kubeconfig_files())):
        raise Unread(f"no cluster is known: {' and '.join(files)} does not exist; set KUBECONFIG")
    try:
        configuration = await load_configuration()
    except Exception as error:  # the library raises what it likes for a file that is absent or wrong
        raise Unread(f"no cluster is known: {' '.join(str(error).split())}; set KUBECONFIG") from error
    client = KubernetesClient(configuration, "tandem-plan")
    try:
        return await read_inventory(client)
    except ApiError as error:
        if error.status == 404:
            raise Unread("the cluster knows no HardwareClass; install the chart first") from error
        raise Unread(f"the cluster is not read: {error}") from error
    finally:
        await client.close()


def kubeconfig_files() -> list[str]:
    return [os.path.expanduser(one) for one in os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep) if one]


async def read_inventory(source: Source) -> tuple[Inventory, dict[str, str]]:
    """Raises ApiError."""
    classes: list[HardwareClass] = []
    problems: dict[str, str] = {}

    def put_class(item: ClassObject) -> None:
        try:
            found = parse_hardware_class(class_body(item))
            hardware_of(found)
            classes.append(found)
        except ValueError as error:
            problems[item.metadata.name] = str(error)

    await read_once(source, _feed(KIND, ClassObject, put_class))
    inventory = Inventory(classes)

    def put_pod(item: Pod) -> None:
        if held := pod_facts(item):
            inventory.put_pod(held)

    await read_once(source, _feed("Node", Node, lambda item: inventory.put_node(node_facts(item))))
    await read_once(source, _feed("Pod", Pod, put_pod, BOUND_PODS))
    return inventory, problems


def _feed(kind: str, decoded: Any, put: Any, query: dict[str, str] | None = None) -> Feed[Any]:
    return Feed(
        kind=kind, type=decoded, put=put, remove=lambda item: None, listed=lambda names: None, query=query or {}
    )
