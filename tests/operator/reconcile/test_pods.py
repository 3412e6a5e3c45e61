"""What is wrong with a pod, in one word and one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from tandem_operator.reconcile.pods import find_problem, refused_pods


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p-1", **metadata}, "status": {"phase": "Pending", **status}}


def container(
    state: dict[str, Any], last: dict[str, Any] | None = None, name: str = "runtime", **more: Any
) -> dict[str, Any]:
    last_state = {"terminated": last} if last else {}
    return {
        "name": name,
        "image": "image:1",
        "ready": False,
        "restartCount": 0,
        "state": state,
        "lastState": last_state,
        **more,
    }


UNCONFIGURED = {"waiting": {"reason": "CreateContainerConfigError", "message": "no x"}}
CRASHED = {"waiting": {"reason": "CrashLoopBackOff"}}


@pytest.mark.parametrize(
    ("status", "reason", "says"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            "Unschedulable", "p-1 finds no node: 0/3; add such nodes",
        ),
        (
            {"containerStatuses": [container({"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}})]},
            "ImageMissing", "cannot get image image:1: not present; correct spec.runtime.image",
        ),
        (
            {"containerStatuses": [container(UNCONFIGURED)]},
            "PodConfigError", "cannot start: no x; see kubectl describe",
        ),
        (
            {"containerStatuses": [container(CRASHED, {"exitCode": 3, "message": "no tensor x"}, restartCount=3)]},
            "ModelNotLoaded", "the model cannot be loaded: no tensor x",
        ),
        (
            {"containerStatuses": [container(CRASHED, {"exitCode": 2, "message": "unknown flag"}, restartCount=3)]},
            "ConfigRefused", "unknown flag",
        ),
        (
            {"containerStatuses": [container(CRASHED, {"exitCode": 137, "reason": "OOMKilled"}, restartCount=1)]},
            "OutOfMemory", "raise resources.limits.memory",
        ),
        (
            {"containerStatuses": [container(CRASHED, {"exitCode": 1, "message": "boom"}, restartCount=4)]},
            "CrashLoopBackOff", "4 restarts: boom; see kubectl logs p-1 -c runtime --previous",
        ),
        (
            {"containerStatuses": [container({"running": {}}, {"exitCode": 1}, restartCount=1)]},
            "CrashLoopBackOff", "it left no message",
        ),
        (
            {
                "initContainerStatuses": [container(CRASHED, {"exitCode": 1, "message": "404 at host"}, "fetch")],
                "containerStatuses": [container({"waiting": {"reason": "PodInitializing"}})],
            },
            "ModelNotFetched", "the model cannot be brought: 404 at host; correct spec.model.uri",
        ),
    ],
)  # fmt: skip
def test_a_problem_is_named_and_ends_with_what_to_do(status: dict[str, Any], reason: str, says: str) -> None:
    problem = find_problem([pod(status)])
    assert problem is not None
    assert problem.reason == reason
    assert says in problem.message


@pytest.mark.parametrize(
    "healthy",
    [
        pod({}),
        pod({"containerStatuses": [container({"waiting": {"reason": "ContainerCreating"}})]}),
        pod({"containerStatuses": [container({"running": {}}, {"exitCode": 1}, restartCount=9, ready=True)]}),
        pod({"containerStatuses": [container(CRASHED, {"exitCode": 1}, restartCount=9)]}, deletionTimestamp="now"),
        pod({"phase": "Failed", "containerStatuses": [container({"terminated": {"exitCode": 137}})]}),
        pod({"initContainerStatuses": [container({"terminated": {"exitCode": 0}}, name="fetch")]}),
    ],
    ids=["new", "creating", "recovered", "leaving", "evicted", "fetched"],
)
def test_a_pod_that_starts_leaves_or_has_recovered_is_no_problem(healthy: dict[str, Any]) -> None:
    assert find_problem([healthy]) is None


def test_the_most_specific_problem_of_several_pods_is_told() -> None:
    pods = [
        pod({"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "full"}]}),
        pod({"containerStatuses": [container({"waiting": {"reason": "ImagePullBackOff"}})]}),
    ]
    problem = find_problem(pods)
    assert problem is not None
    assert problem.reason == "ImageMissing"


def test_long_messages_are_cut() -> None:
    problem = find_problem(
        [pod({"containerStatuses": [container(CRASHED, {"exitCode": 1, "message": "x" * 9999}, restartCount=1)]})]
    )
    assert problem is not None
    assert len(problem.message) < 700


def test_pods_that_were_never_made_are_a_problem_too() -> None:
    failed = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}
    problem = refused_pods({"metadata": {"name": "chat-decode-1"}, "status": {"conditions": [failed]}})
    assert problem is not None
    assert problem.reason == "PodsRefused"
    assert "exceeded quota: gpus; change the quota" in problem.message
    assert refused_pods({"metadata": {"name": "x"}}) is None
