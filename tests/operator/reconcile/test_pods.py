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
            {"containerStatuses": [container(CRASHED, {"exitCode": 4, "message": "no valid API key"}, restartCount=1)]},
            "ApiKeysMissing", "no valid API key; the Secret that spec.router.apiKeysSecret names must exist",
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
        pod(
            {"initContainerStatuses": [container({"running": {}}, {"exitCode": 1}, "mesh", restartCount=1, ready=True)]}
        ),
        pod({"containerStatuses": [container({"running": {}}, {"exitCode": 0}, restartCount=1)]}),
    ],
    ids=["new", "creating", "recovered", "leaving", "evicted", "fetched", "sidecar", "stopped-once"],
)
def test_a_pod_that_starts_leaves_or_has_recovered_is_no_problem(healthy: dict[str, Any]) -> None:
    assert find_problem([healthy]) is None


REALISTIC: list[tuple[str, dict[str, Any], str, list[str]]] = [
    (
        "a node without GPUs",
        {
            "phase": "Pending",
            "conditions": [
                {
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "lastProbeTime": None, "lastTransitionTime": "2030-01-01T00:00:00Z",
                    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. no new claims to deallocate,"
                    " preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
                }
            ],
            "qosClass": "Burstable",
        },
        "Unschedulable", ["3 Insufficient nvidia.com/gpu", "lower resources"],
    ),
    (
        "an image that no registry has, seen at the init container",
        {
            "initContainerStatuses": [
                container(
                    {
                        "waiting": {
                            "reason": "ImagePullBackOff",
                            "message": 'Back-off pulling image "registry/none:1": ErrImagePull: not found',
                        }
                    },
                    name="fetch", image="registry/none:1", started=False,
                )
            ],
            "containerStatuses": [container({"waiting": {"reason": "PodInitializing"}}, started=False)],
        },
        "ImageMissing", ["registry/none:1", "ErrImagePull: not found", "spec.runtime.image"],
    ),
    (
        "a model that is larger than the memory limit",
        {
            "phase": "Running",
            "containerStatuses": [
                container(
                    {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
                    {"exitCode": 137, "reason": "OOMKilled", "startedAt": "x", "finishedAt": "y", "containerID": "c"},
                    restartCount=4, started=False,
                )
            ],
        },
        "OutOfMemory", ["4 restarts: out of memory", "raise resources.limits.memory"],
    ),
    (
        "a fetch that was killed for memory has no wrong uri",
        {
            "initContainerStatuses": [
                container(CRASHED, {"exitCode": 137, "reason": "OOMKilled"}, name="fetch", restartCount=1)
            ],
        },
        "OutOfMemory", ["container fetch of pod p-1", "raise resources.limits.memory"],
    ),
    (
        "a fetch that is tried for the second time",
        {
            "initContainerStatuses": [
                container(
                    {"running": {"startedAt": "x"}},
                    {"exitCode": 1, "reason": "Error", "message": "hf://org/none: 404 Not Found"},
                    name="fetch", restartCount=1, started=False,
                )
            ],
            "containerStatuses": [container({"waiting": {"reason": "PodInitializing"}}, started=False)],
        },
        "ModelNotFetched", ["hf://org/none: 404 Not Found", "correct spec.model.uri"],
    ),
    (
        "a foreign image, while it is started",
        {
            "containerStatuses": [
                container(
                    {"waiting": {"reason": "RunContainerError", "message": 'exec: "tandem-runtime": not found'}},
                    {"exitCode": 128, "reason": "StartError", "message": 'exec: "tandem-runtime": not found'},
                    restartCount=2,
                )
            ],
        },
        "PodConfigError", ['exec: "tandem-runtime": not found'],
    ),
    (
        "the same foreign image, between two tries",
        {
            "containerStatuses": [
                container(
                    CRASHED,
                    {"exitCode": 128, "reason": "StartError", "message": 'exec: "tandem-runtime": not found'},
                    restartCount=2,
                )
            ],
        },
        "PodConfigError", ['exec: "tandem-runtime": not found', "correct spec.runtime.image"],
    ),
    (
        "a pod that its liveness probe stops again and again: the runtime drains and ends with 0",
        {"containerStatuses": [container(CRASHED, {"exitCode": 0, "reason": "Completed"}, restartCount=5)]},
        "CrashLoopBackOff", ["ended with code 0, 5 restarts", "probe", "--previous"],
    ),
    (
        "an image that must not run as root",
        {
            "containerStatuses": [
                container(
                    {
                        "waiting": {
                            "reason": "CreateContainerConfigError",
                            "message": "container has runAsNonRoot and image will run as root",
                        }
                    }
                )
            ],
        },
        "PodConfigError", ["image will run as root", "kubectl describe pod p-1"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "reason", "says"), [row[1:] for row in REALISTIC], ids=[row[0] for row in REALISTIC]
)
def test_a_status_as_kubelets_write_it_is_understood(status: dict[str, Any], reason: str, says: list[str]) -> None:
    problem = find_problem([pod(status)])
    assert problem is not None
    assert problem.reason == reason
    for words in says:
        assert words in problem.message


def test_of_a_long_log_the_end_is_told_where_the_error_is() -> None:
    log = "\n".join([*(f'{{"level":"info","message":"line {n}"}}' for n in range(200)), "ValueError: head_dim is 7"])
    problem = find_problem(
        [pod({"containerStatuses": [container(CRASHED, {"exitCode": 1, "message": log}, restartCount=1)]})]
    )
    assert problem is not None
    assert "ValueError: head_dim is 7; see kubectl logs" in problem.message
    assert len(problem.message) < 700


def test_the_most_specific_problem_of_several_pods_is_told() -> None:
    pods = [
        pod({"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "full"}]}),
        pod({"containerStatuses": [container({"waiting": {"reason": "ImagePullBackOff"}})]}),
    ]
    problem = find_problem(pods)
    assert problem is not None
    assert problem.reason == "ImageMissing"


def test_advice_of_our_own_program_is_not_followed_by_another() -> None:
    left = {"exitCode": 1, "message": "hub answers 401 Unauthorized; set HF_TOKEN to a token that may read it"}
    problem = find_problem([pod({"initContainerStatuses": [container(CRASHED, left, "fetch")]})])
    assert problem is not None
    assert "set HF_TOKEN to a token that may read it (container" in problem.message


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
