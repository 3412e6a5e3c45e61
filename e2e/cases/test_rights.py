"""What the operator may do is what it does. Last of all on purpose: by then it has done all that it can do."""

from __future__ import annotations

import json

import pytest

from e2e.cases.hardware import left_out
from e2e.cases.manifests import emulated
from e2e.stack import SYSTEM_NAMESPACE, Stack, wait_until


def test_the_operator_uses_exactly_the_rights_it_has(stack: Stack, namespace: str) -> None:
    log = stack.cluster.audit_log
    if log is None:
        pytest.skip(f"the API server of a {stack.cluster.kind} cluster writes no audit log that can be read here")
    for hardware_class in ("laptop", "h100-sxm"):  # two revisions, so that it removes the pools of the first
        stack.apply(emulated("fleet").replace("hardwareClass: laptop", f"hardwareClass: {hardware_class}"), namespace)
        stack.wait_ready("fleet", namespace)
    wait_until("the first pools are gone", 60, lambda: len(stack.get("deploy", namespace=namespace)["items"]) == 3)
    with left_out(stack, "v100-sxm2-32gb"):
        pass  # few other cases make the operator remove a hardware class
    user = f"system:serviceaccount:{SYSTEM_NAMESPACE}:tandem"
    used: set[tuple[str, str, str]] = set()
    refused: set[tuple[str, str, str]] = set()
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if entry["user"]["username"] != user or "objectRef" not in entry or entry["stage"] != "ResponseComplete":
            continue
        thing = entry["objectRef"]
        resource = thing["resource"] + (f"/{thing['subresource']}" if thing.get("subresource") else "")
        code = entry.get("responseStatus", {}).get("code", 0)
        # Not every 403 is a missing right: a namespace that is being deleted takes nothing new either.
        forbidden = entry.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"
        (refused if forbidden else used).add((thing.get("apiGroup", ""), resource, entry["verb"]))
        if code == 201:  # a server-side apply that makes an object is a patch that also needs the right to create
            used.add((thing.get("apiGroup", ""), resource, "create"))
    assert refused == set()
    assert granted(stack) - used == set(), "rights that the operator has and never used"
    assert used - granted(stack) <= {("authorization.k8s.io", "selfsubjectaccessreviews", "create")}


def granted(stack: Stack) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of the ClusterRole and the Role that the chart made."""
    rules = [
        rule
        for kind, namespace in (("clusterroles", "default"), ("roles", SYSTEM_NAMESPACE))
        for item in stack.get(kind, "", namespace, "app.kubernetes.io/name=tandem")["items"]
        for rule in item["rules"]
    ]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
