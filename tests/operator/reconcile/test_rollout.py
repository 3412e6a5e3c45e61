"""Stories of the loop against a fake cluster: converge, roll out, roll back, restart in between."""

from __future__ import annotations

import math

import pytest
from tandem_operator.api import names

from tests.operator.world import World


async def test_an_applied_deployment_gets_its_children_and_becomes_ready(world: World) -> None:
    assert await world.look() == 15.0
    assert world.cluster.names("Service") == ["chat", "chat-decode", "chat-prefill"]
    assert world.cluster.names("ConfigMap") == ["chat-endpoints"]
    assert world.cluster.names("Secret") == ["chat-token"]
    assert len(world.cluster.names("Deployment")) == 3
    assert world.condition("Ready")["status"] == "False"
    await world.settle()
    status = world.infd()["status"]
    assert world.condition("Ready")["reason"] == "Serving"
    assert status["decode"] == {"ready": 1, "want": 1, "summary": "1/1", "revision": status["revision"]}
    assert status["observedGeneration"] == 1
    assert status["url"] == "http://chat.team.svc:8000/v1"
    assert {notice.reason for notice in world.cluster.notices} >= {"RollingOut", "RolloutComplete", "Serving"}


async def test_a_second_look_writes_nothing_and_comes_back_only_at_the_resync(ready: World) -> None:
    assert await ready.look() == math.inf
    assert ready.cluster.writes == []
    ready.restart_operator()
    assert await ready.look() == math.inf
    assert ready.cluster.writes == []


async def test_scaling_touches_only_that_pool(ready: World) -> None:
    ready.change(decode={"replicas": 3})
    await ready.look()
    revision = ready.infd()["status"]["revision"]
    assert ready.cluster.writes == [f"apply Deployment chat-decode-{revision}", "status chat"]
    assert ready.condition("DecodeAvailable")["status"] == "False"
    assert ready.infd()["status"]["decode"]["summary"] == "1/3"
    assert ready.condition("ReplicasOverridden")["status"] == "False"


async def test_a_new_revision_comes_up_beside_the_old_one_and_takes_over_in_order(ready: World) -> None:
    (old,) = ready.revisions()
    ready.change(model={"uri": "file:///models/other"})
    await ready.look()
    new = ready.infd()["status"]["revision"]
    assert ready.revisions() == {old, new}
    assert not any("router" in write for write in ready.cluster.writes), "the router waits for both pools"
    assert ready.condition("Progressing")["reason"] == "RollingOut"
    assert ready.infd()["status"]["prefill"]["revision"] == old

    ready.cluster.make_ready(f"chat-prefill-{new}")
    await ready.look()
    assert not any("router" in write for write in ready.cluster.writes), "one of two pools is not enough"

    ready.cluster.make_ready(f"chat-decode-{new}")
    await ready.look()
    assert "apply Deployment chat-router" in ready.cluster.writes
    assert ready.revisions() == {old, new}, "the old pools stay while old router pods may use them"

    ready.cluster.make_ready("chat-router")
    await ready.look()
    assert ready.revisions() == {new}
    assert ready.condition("Ready")["reason"] == "Serving"


@pytest.mark.parametrize(("grace_ends", "kept"), [("2030-01-01T00:01:50Z", True), ("2029-12-31T23:00:00Z", False)])
async def test_old_pools_wait_for_the_last_answer_of_an_old_router_but_not_for_one_on_a_lost_node(
    ready: World, grace_ends: str, kept: bool
) -> None:
    (old,) = ready.revisions()
    ready.change(model={"uri": "file:///models/other"})
    metadata = {
        "name": "chat-router-1", "namespace": "team", "deletionTimestamp": grace_ends,
        "labels": names.pod_labels("chat", "router", old),
    }  # fmt: skip
    ready.cluster.add({"kind": "Pod", "metadata": metadata, "status": {"phase": "Running"}})
    await ready.settle()
    new = ready.infd()["status"]["revision"]
    assert ready.revisions() == ({old, new} if kept else {new})
    del ready.cluster.objects[("Pod", "team", "chat-router-1")]
    await ready.look()
    assert ready.revisions() == {new}


async def test_a_rollback_in_the_middle_needs_no_new_pods(ready: World) -> None:
    (old,) = ready.revisions()
    ready.change(model={"uri": "file:///models/other"})
    await ready.look()
    ready.change(model={"uri": "file:///models/tiny"})
    await ready.look()
    assert ready.revisions() == {old}
    assert ready.condition("Ready")["status"] == "True"


async def test_a_router_deleted_while_a_rollout_is_stuck_costs_no_pool_that_could_serve(ready: World) -> None:
    (old,) = ready.revisions()
    ready.change(model={"uri": "file:///models/mistyped"})
    await ready.look()
    del ready.cluster.objects[("Deployment", "team", "chat-router")]
    await ready.look()
    await ready.look()
    assert old in ready.revisions()
    before = ready.cluster.find_one("Deployment", f"chat-decode-{old}")["metadata"]["uid"]
    ready.change(model={"uri": "file:///models/tiny"})
    await ready.settle()
    assert ready.revisions() == {old}
    assert ready.cluster.find_one("Deployment", f"chat-decode-{old}")["metadata"]["uid"] == before
    assert ready.condition("Ready")["status"] == "True"


async def test_the_count_of_routers_is_kept_while_a_rollout_is_stuck(ready: World) -> None:
    ready.change(model={"uri": "file:///models/mistyped"})
    await ready.look()
    template = ready.cluster.find_one("Deployment", "chat-router")["spec"]["template"]
    ready.change(router={"replicas": 3})
    await ready.look()
    assert ready.cluster.find_one("Deployment", "chat-router")["spec"]["replicas"] == 3
    assert ready.condition("ReplicasOverridden")["status"] == "False", "the spec asked for it"
    ready.cluster.edit("Deployment", "chat-router", "kubectl", {"f:spec": {"f:replicas": {}}}, replicas=0)
    await ready.look()
    router = ready.cluster.find_one("Deployment", "chat-router")
    assert router["spec"]["replicas"] == 3
    assert router["spec"]["template"] == template, "it still serves the old revision"
    assert "spec.replicas 0 -> 3" in ready.condition("ReplicasOverridden")["message"]


async def test_a_third_revision_replaces_one_that_never_served(ready: World) -> None:
    (old,) = ready.revisions()
    for uri in ("file:///a", "file:///b"):
        ready.change(model={"uri": uri})
        await ready.look()
    assert ready.revisions() == {old, ready.infd()["status"]["revision"]}


@pytest.mark.parametrize("restarts", [1, 2, 5])
async def test_an_operator_restarted_during_a_rollout_ends_in_the_same_state(ready: World, restarts: int) -> None:
    ready.change(model={"uri": "file:///models/other"}, decode={"replicas": 2})
    for _ in range(restarts):
        ready.restart_operator()
        await ready.look()
        ready.cluster.make_ready("chat")
    ready.restart_operator()
    await ready.settle()
    assert len(ready.revisions()) == 1
    assert ready.condition("Ready")["status"] == "True"
    assert ready.condition("ReplicasOverridden")["status"] == "False"


async def test_an_operator_upgrade_with_a_new_default_image_touches_no_model_pod(ready: World) -> None:
    ready.restart_operator(image="image:2")
    await ready.look()
    assert ready.cluster.writes == []


async def test_a_new_revision_takes_the_new_default_image(ready: World) -> None:
    ready.restart_operator(image="image:2")
    ready.change(model={"uri": "file:///models/other"})
    await ready.settle()
    (pool,) = [n for n in ready.cluster.names("Deployment") if n.startswith("chat-decode")]
    assert ready.cluster.find_one("Deployment", pool)["spec"]["template"]["spec"]["containers"][0]["image"] == "image:2"


async def test_a_crash_looping_revision_leaves_the_old_one_serving_and_says_why(ready: World) -> None:
    (old,) = ready.revisions()
    ready.change(model={"uri": "file:///models/other"})
    await ready.look()
    new = ready.infd()["status"]["revision"]
    terminated = {"exitCode": 3, "message": "tensor lm_head.weight is missing", "reason": "Error"}
    pod = {
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "team", "labels": names.pod_labels("chat", "prefill", new)},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "runtime", "ready": False, "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": terminated},
                }
            ],
        },
    }  # fmt: skip
    ready.cluster.add(pod)
    await ready.look()
    said = ready.condition("Ready")
    assert (said["status"], said["reason"]) == ("False", "ModelNotLoaded")
    assert "tensor lm_head.weight is missing" in said["message"]
    assert f"revision {old} goes on serving" in said["message"]
    assert ready.condition("PrefillAvailable")["status"] == "True"
    assert ready.revisions() == {old, new}


async def test_a_router_that_waits_for_missing_api_keys_says_so_while_the_old_one_serves(ready: World) -> None:
    ready.change(router={"apiKeysSecret": {"name": "client-keys"}})
    await ready.look()
    (revision,) = ready.revisions()
    router = ready.cluster.find_one("Deployment", "chat-router")
    router["status"] |= {
        "observedGeneration": router["metadata"]["generation"],
        "replicas": 2,
        "updatedReplicas": 1,
        "readyReplicas": 1,
        "availableReplicas": 1,
    }
    ended = {"exitCode": 4, "message": "no valid API key: /etc/tandem/keys is empty", "reason": "Error"}
    container = {"name": "runtime", "ready": False, "restartCount": 1, "state": {"running": {}}}
    ready.cluster.add(
        {
            "kind": "Pod",
            "metadata": {"name": "r", "namespace": "team", "labels": names.pod_labels("chat", "router", revision)},
            "status": {"phase": "Running", "containerStatuses": [container | {"lastState": {"terminated": ended}}]},
        }
    )
    await ready.look()
    said = ready.condition("Ready")
    assert (said["status"], said["reason"]) == ("False", "ApiKeysMissing")
    assert "the Secret that spec.router.apiKeysSecret names must exist and hold a valid entry" in said["message"]
    assert ready.condition("RouterAvailable")["status"] == "True", "the old one answers until a new one can"
