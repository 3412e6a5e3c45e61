"""The operator on a real API server: converge, repair, report, explain, and leave nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from e2e.cases.conftest import CHILDREN, gone
from e2e.cases.manifests import emulated, real
from e2e.cluster import ClusterError
from e2e.stack import Stack, wait_until


def test_a_hand_edited_pool_is_repaired_and_reported(stack: Stack, namespace: str) -> None:
    stack.apply(emulated("fleet"), namespace)
    stack.wait_ready("fleet", namespace)
    pool = stack.get("deploy", namespace=namespace, selector="tandem.dev/role=decode")["items"][0]["metadata"]["name"]
    stack.cluster.kubectl("scale", f"deployment/{pool}", "--replicas=3", "--namespace", namespace)
    wait_until("the count is repaired", 60, lambda: stack.get("deploy", pool, namespace)["spec"]["replicas"] == 1)
    said = wait_until(
        "the edit is reported",
        60,
        lambda: (c := stack.condition("fleet", "ReplicasOverridden", namespace)).get("status") == "True" and c,
    )
    assert "3" in said["message"]
    assert pool in said["message"]
    events = stack.get("events", namespace=namespace)["items"]
    assert any(event["reason"] == "ReplicasOverridden" for event in events)


@pytest.mark.parametrize("kind", ["service", "configmap", "deployment"])
def test_a_deleted_child_comes_back(stack: Stack, namespace: str, kind: str) -> None:
    stack.apply(emulated("fleet"), namespace)
    stack.wait_ready("fleet", namespace)
    selector = "tandem.dev/deployment=fleet"
    before = {
        item["metadata"]["name"]: item["metadata"]["uid"] for item in stack.get(kind, "", namespace, selector)["items"]
    }
    stack.cluster.kubectl("delete", kind, "--selector", selector, "--namespace", namespace)

    def back() -> bool:
        items = stack.get(kind, "", namespace, selector)["items"]
        now = {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}
        return now.keys() == before.keys() and not set(now.values()) & set(before.values())

    wait_until(f"every {kind} is back", 60, back)
    stack.wait_ready("fleet", namespace)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("replicas: 1", "replicas: 0", "replicas"),
        ("executor: Emulated", "executor: Imagined", "Torch"),
        ("executor: Emulated", "executor: Torch", "uri"),
        ("name: fleet", "name: a-name-that-is-much-too-long-for-the-names-of-its-children", "characters"),
        ("hardwareClass: laptop", "hardwareClass: abacus", "h100-sxm"),
        ("  prefill:", "  model: {uri: 'ftp://somewhere/model'}\n  prefill:", "hf://"),
    ],
    ids=["zero-replicas", "unknown-executor", "torch-without-model", "long-name", "unknown-class", "unknown-scheme"],
)
def test_an_invalid_spec_is_refused_with_a_sentence_a_person_can_act_on(
    refused: Callable[[str], str], old: str, new: str, says: str
) -> None:
    assert says in refused(emulated("fleet").replace(old, new, 1))


def test_an_unknown_field_is_named(refused: Callable[[str], str]) -> None:
    assert "replcas" in refused(emulated("fleet").replace("replicas: 1", "replcas: 1", 1))


def test_delete_leaves_nothing(stack: Stack, namespace: str) -> None:
    stack.apply(emulated("fleet"), namespace)
    stack.wait_ready("fleet", namespace)
    stack.cluster.kubectl("delete", "infd", "fleet", "--namespace", namespace, "--timeout=60s")
    for kind in (CHILDREN, "pods"):
        gone(stack, kind, namespace, "tandem.dev/deployment=fleet")


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (
            emulated("sick").replace("  decode:", "  decode:\n    resources: {requests: {cpu: 900}}", 1),
            "nsufficient cpu",
        ),
        (
            emulated("sick").replace("hardwareClass: laptop}}", "hardwareClass: laptop}, image: localhost/nowhere:1}"),
            "image",
        ),
        (real("sick", "file:///models/missing"), "/models/missing"),
        (real("sick", context=9999), "2048"),
    ],
    ids=["unschedulable", "image-less", "no-model", "crash-looping"],
)
def test_kubectl_get_says_why_it_is_not_fine(stack: Stack, namespace: str, manifest: str, says: str) -> None:
    stack.apply(manifest, namespace)

    def explained() -> str:
        message: str = stack.condition("sick", "Ready", namespace).get("message", "")
        return message if says in message else ""

    wait_until(f"Ready says {says!r}", 120, explained)
    table = stack.cluster.kubectl("get", "infd", "sick", "--namespace", namespace)
    reason = stack.condition("sick", "Ready", namespace)["reason"]
    assert reason in table, f"the Reason column must say {reason}:\n{table}"


def test_kubectl_explain_reads_as_documentation(stack: Stack) -> None:
    outline = stack.cluster.kubectl("explain", "infd.spec", "--recursive")
    for field in ("model", "uri", "prefill", "decode", "replicas", "waitForPods", "executor"):
        assert field in outline
    schema = json.loads(stack.cluster.kubectl("get", "crd", "inferencedeployments.tandem.dev", "--output", "json"))
    spec = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert undocumented(spec, "spec") == []


def undocumented(schema: dict[str, object], path: str) -> list[str]:
    """Paths of properties without a description."""
    missing = [] if schema.get("description") else [path]
    properties = schema.get("properties", {})
    assert isinstance(properties, dict)
    for name, child in properties.items():
        missing += undocumented(child, f"{path}.{name}")
    return missing


def test_a_wrong_kubectl_edit_names_the_field(stack: Stack, namespace: str) -> None:
    stack.apply(emulated("fleet"), namespace)
    patch = json.dumps({"spec": {"router": {"waitForPods": "soon"}}})
    with pytest.raises(ClusterError) as caught:
        stack.cluster.kubectl("patch", "infd", "fleet", "-n", namespace, "--type=merge", "--patch", patch)
    assert "waitForPods" in str(caught.value)
