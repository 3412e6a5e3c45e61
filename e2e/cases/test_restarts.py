"""The operator restarted: in the middle of its work, and with nothing to do. In no lane: others need it meanwhile."""

from __future__ import annotations

import time

from e2e.cases.conftest import CHILDREN
from e2e.cases.manifests import emulated
from e2e.stack import SYSTEM_NAMESPACE, Stack


def test_an_operator_restarted_twice_during_a_rollout_restarts_no_model_pod(stack: Stack, namespace: str) -> None:
    stack.apply(emulated("fleet", prefill=1, decode=1), namespace)
    stack.wait_ready("fleet", namespace)
    before = {pod["metadata"]["uid"] for pod in stack.pods(namespace, "fleet")}
    stack.apply(emulated("fleet", prefill=3, decode=3), namespace)
    for _ in range(2):
        stack.cluster.kubectl("delete", "pod", "--namespace", SYSTEM_NAMESPACE, "--all", "--grace-period=0", "--force")
        time.sleep(2)
    stack.wait_ready("fleet", namespace, 180)
    pods = stack.pods(namespace, "fleet")
    assert len(pods) == 7
    assert before <= {pod["metadata"]["uid"] for pod in pods}, "pods of before the rollout were replaced"
    restarts = [status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"]]
    assert restarts == [0] * 7
    revisions = {pod["metadata"]["labels"]["tandem.dev/revision"] for pod in pods}
    assert len(revisions) == 1


def test_apply_of_the_same_thing_twice_writes_nothing(stack: Stack, namespace: str) -> None:
    stack.apply(emulated("fleet"), namespace)
    stack.wait_ready("fleet", namespace)
    time.sleep(3)
    kinds = f"{CHILDREN},infd"

    def versions() -> dict[str, object]:
        """Of Deployments the generation: their status is Kubernetes' own to write, whenever a probe is late."""
        found: dict[str, object] = {}
        for item in stack.get(kinds, namespace=namespace)["items"]:
            version = "generation" if item["kind"] == "Deployment" else "resourceVersion"
            found[f"{item['kind']}/{item['metadata']['name']}"] = item["metadata"][version]
        return found

    before = versions()
    stack.apply(emulated("fleet"), namespace)
    stack.cluster.kubectl("rollout", "restart", "deployment", "--namespace", SYSTEM_NAMESPACE)
    stack.cluster.kubectl("rollout", "status", "deployment", "--namespace", SYSTEM_NAMESPACE, "--timeout=120s")
    time.sleep(5)
    assert versions() == before
