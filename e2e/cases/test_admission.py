"""kubectl apply of what no hardware can do is refused with the arithmetic, what is doubtful is warned about."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from e2e.cases.fleet import KINDS, LARGE, SMALL, Json, deployment, slo
from e2e.cluster.kwok import FakeNodes
from e2e.stack import SYSTEM_NAMESPACE, Stack, wait_until

CONFIGURATION = f"{SYSTEM_NAMESPACE}-tandem-admission"
H100 = next(kind for kind in KINDS if kind.hardware_class == "h100-sxm")


@pytest.fixture(scope="module")
def nodes(stack: Stack) -> Iterator[FakeNodes]:
    """Two nodes of eight H100."""
    with FakeNodes(stack.cluster) as fake:
        fake.add(list(H100.nodes())[:2])
        wait_until("the operator knows the nodes", 60, lambda: h100_nodes(stack) == 2)
        yield fake


@pytest.fixture
def door(stack: Stack, nodes: FakeNodes, shared_namespace: str) -> Stack:
    """The webhook answers: API servers trust its authority."""
    webhook_answers(stack, shared_namespace)
    return stack


def h100_nodes(stack: Stack) -> int:
    return int(stack.get("hardwareclass", "h100-sxm").get("status", {}).get("nodes", 0))


def impossible(name: str) -> Json:
    """A model of 141 GB with a token every millisecond."""
    return deployment(name, LARGE, slo=slo("2s", "1ms"))


def tell(stack: Stack, namespace: str, body: Json, *options: str) -> tuple[int, str]:
    """Exit code of `kubectl apply`, and what it printed on both streams."""
    done = subprocess.run(
        [stack.cluster.kubectl_program(), "apply", "--namespace", namespace, *options, "--filename", "-"],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **stack.cluster.environment()},
    )
    said = done.stdout + done.stderr
    return done.returncode, said.replace("denied the request", "refused")


def webhook_answers(stack: Stack, namespace: str) -> None:
    """Waits for it: services reach a pod a moment after it is ready, and until then nothing is asked or said."""
    probe = impossible("probe")
    wait_until("the webhook answers", 90, lambda: "refused" in tell(stack, namespace, probe, "--dry-run=server")[1])


def exists(stack: Stack, namespace: str, name: str) -> bool:
    return bool(stack.cluster.kubectl("get", "infd", name, "-n", namespace, "--ignore-not-found", "-o", "name"))


@pytest.mark.parametrize("options", [(), ("--dry-run=server",)], ids=["apply", "dry-run"])
def test_an_impossible_objective_is_refused_with_the_numbers(
    door: Stack, shared_namespace: str, options: tuple[str, ...]
) -> None:
    code, said = tell(door, shared_namespace, impossible("impossible"), *options)
    assert code == 1
    assert "TPOT" in said
    assert "h100-sxm" in said
    assert "objective" in said
    assert not exists(door, shared_namespace, "impossible")


def test_a_replica_that_fits_no_node_is_refused(door: Stack, shared_namespace: str) -> None:
    code, said = tell(door, shared_namespace, deployment("wide", LARGE, decode={"gpus": 16}))
    assert code == 1
    assert "a replica of 16 devices fits no single node" in said


def test_what_finds_no_room_now_is_taken_with_a_warning(door: Stack, shared_namespace: str) -> None:
    crowd = deployment("crowd", SMALL, decode={"replicas": 20}, slo=slo("2s", "60ms"))
    code, said = tell(door, shared_namespace, crowd, "--dry-run=server")
    assert code == 0
    assert "Warning:" in said
    assert "find no room now" in said


def test_what_fits_is_taken_without_a_word(door: Stack, shared_namespace: str) -> None:
    fine = deployment("fine", SMALL, slo=slo("2s", "60ms"))
    code, said = tell(door, shared_namespace, fine, "--dry-run=server")
    assert (code, "Warning" in said) == (0, False)


def test_an_outage_of_the_webhook_blocks_nothing_and_the_condition_says_the_same(
    door: Stack, shared_namespace: str
) -> None:
    cluster = door.cluster
    cluster.kubectl("scale", "deploy/tandem", "-n", SYSTEM_NAMESPACE, "--replicas=0")
    try:
        cluster.kubectl("wait", "--for=delete", "pods", "-l", "app.kubernetes.io/name=tandem", "-n", SYSTEM_NAMESPACE)
        code, said = tell(door, shared_namespace, impossible("meanwhile"))
        assert code == 0, said
    finally:
        cluster.kubectl("scale", "deploy/tandem", "-n", SYSTEM_NAMESPACE, "--replicas=1")
        cluster.kubectl("rollout", "status", "deploy/tandem", "-n", SYSTEM_NAMESPACE, "--timeout=120s")
    placed = wait_until(
        "Placed says why not",
        60,
        lambda: (c := door.condition("meanwhile", "Placed", shared_namespace)).get("status") == "False" and c,
    )
    assert "TPOT" in placed["message"]
    webhook_answers(door, shared_namespace)
    changed = copy.deepcopy(impossible("meanwhile"))
    changed["spec"]["router"]["replicas"] = 2
    code, said = tell(door, shared_namespace, changed)
    assert code == 0, "what was taken once stays editable"
    assert "Warning:" in said
    cluster.kubectl("delete", "infd", "meanwhile", "-n", shared_namespace)


def test_the_authority_is_the_operators_own_and_comes_back_when_it_is_emptied(
    door: Stack, shared_namespace: str
) -> None:
    empty = json.dumps([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}])
    door.cluster.kubectl("patch", "validatingwebhookconfiguration", CONFIGURATION, "--type=json", "--patch", empty)

    def bundle() -> str:
        webhook = door.get("validatingwebhookconfiguration", CONFIGURATION)["webhooks"][0]
        return str(webhook["clientConfig"].get("caBundle", ""))

    wait_until("caBundle is back", 60, bundle)
    webhook_answers(door, shared_namespace)
