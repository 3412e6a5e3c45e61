"""Stories of the loop against a fake cluster: converge, roll out, repair, refuse, report."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tandem_operator.api import names
from tandem_operator.config import RenderSettings, Settings
from tandem_operator.reconcile.errors import ApiError, Waiting
from tandem_operator.reconcile.reconciler import Reconciler

from tests.operator.builders import body
from tests.operator.fake_cluster import FakeCluster

KEY = ("team", "chat")


class World:
    """A cluster, an operator and a clock."""

    def __init__(self, image: str = "image:1") -> None:
        self.cluster = FakeCluster()
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.restart_operator(image)

    def restart_operator(self, image: str = "image:1") -> None:
        settings = Settings(render=RenderSettings(default_runtime_image=image))
        self.operator = Reconciler(self.cluster, settings, lambda: self.now, lambda: "secret")

    async def look(self) -> float | None:
        return await self.operator.reconcile(KEY)

    async def settle(self) -> None:
        """All pods become ready, until nothing changes any more."""
        for _ in range(4):
            await self.look()
            self.cluster.make_ready("chat")
        await self.look()

    def change(self, **spec: Any) -> None:
        infd = self.infd()
        infd["spec"] |= spec
        infd["metadata"]["generation"] += 1

    def infd(self) -> dict[str, Any]:
        return self.cluster.find_one(names.KIND, "chat")

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.infd()["status"]["conditions"] if c["type"] == kind)

    def revisions(self) -> set[str]:
        return {n.rsplit("-", 1)[1] for n in self.cluster.names("Deployment") if n != "chat-router"}


@pytest.fixture
async def world() -> World:
    made = World()
    made.cluster.add(body())
    return made


@pytest.fixture
async def ready(world: World) -> World:
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    world.cluster.writes.clear()
    world.cluster.notices.clear()
    return world


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


async def test_a_foreign_count_is_repaired_and_reported_for_a_few_minutes(ready: World) -> None:
    pool = next(n for n in ready.cluster.names("Deployment") if "decode" in n)
    ready.cluster.edit("Deployment", pool, "kubectl-edit", {"f:spec": {"f:replicas": {}}}, replicas=7)
    assert await ready.look() == 15.0  # the pool is short of nothing, but its rollout must be seen again
    assert ready.cluster.find_one("Deployment", pool)["spec"]["replicas"] == 1
    said = ready.condition("ReplicasOverridden")
    assert (said["status"], said["reason"]) == ("True", "ChildEdited")
    assert said["message"].startswith(f"kubectl-edit changed Deployment {pool} (spec.replicas 7 -> 1)")
    assert [n.reason for n in ready.cluster.notices if n.type == "Warning"] == ["ReplicasOverridden"]
    ready.now += timedelta(minutes=4)
    ready.restart_operator()
    ready.cluster.make_ready("chat")
    assert await ready.look() == pytest.approx(60, abs=1)
    assert ready.condition("ReplicasOverridden")["status"] == "True"
    ready.now += timedelta(minutes=2)
    await ready.look()
    assert ready.condition("ReplicasOverridden")["status"] == "False"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("Service", "chat"), ("Service", "chat-decode"), ("ConfigMap", "chat-endpoints"), ("Secret", "chat-token"),
     ("Deployment", "chat-router")],
)  # fmt: skip
async def test_a_deleted_child_comes_back_and_is_reported(ready: World, kind: str, name: str) -> None:
    del ready.cluster.objects[(kind, "team", name)]
    await ready.look()
    assert name in ready.cluster.names(kind)
    assert ready.condition("ReplicasOverridden")["reason"] == "ChildDeleted"
    assert f"{kind} {name}" in ready.condition("ReplicasOverridden")["message"]


async def test_the_token_is_made_once_and_never_rewritten(ready: World) -> None:
    token = ready.cluster.find_one("Secret", "chat-token")
    ready.change(prefill={"replicas": 2})
    await ready.settle()
    assert ready.cluster.find_one("Secret", "chat-token") == token
    assert set(token["stringData"]) == {"token", "prefix-key"}


async def test_an_object_of_somebody_else_is_never_taken_over(world: World) -> None:
    theirs = {"kind": "Service", "metadata": {"name": "chat", "namespace": "team"}, "spec": {"mine": True}}
    world.cluster.add(theirs)
    assert await world.look() == 15.0
    assert world.condition("Accepted")["reason"] == "NameTaken"
    assert "Service chat exists" in world.condition("Ready")["message"]
    assert world.cluster.find_one("Service", "chat")["spec"] == {"mine": True}


async def test_children_of_a_deleted_namesake_are_waited_for(ready: World) -> None:
    again = body()
    again["metadata"]["uid"] = "another"
    ready.cluster.add(again)
    with pytest.raises(Waiting, match="is being collected"):
        await ready.look()


async def test_a_label_taken_off_a_child_is_put_back(ready: World) -> None:
    service = ready.cluster.find_one("Service", "chat")
    del service["metadata"]["labels"]["tandem.dev/deployment"]
    await ready.look()
    assert service["metadata"]["name"] in ready.cluster.names("Service")
    assert ready.cluster.find_one("Service", "chat")["metadata"]["labels"]["tandem.dev/deployment"] == "chat"
    assert ready.condition("ReplicasOverridden")["reason"] == "ChildEdited"


async def test_an_override_that_breaks_selectors_is_refused_and_what_runs_stays(ready: World) -> None:
    ready.change(decode={"template": {"spec": {"restartPolicy": "Never"}}})
    assert await ready.look() == math.inf
    assert ready.condition("Accepted") == {
        "type": "Accepted", "status": "False", "reason": "InvalidTemplate", "observedGeneration": 2,
        "lastTransitionTime": "2030-01-01T00:00:00Z",
        "message": "spec.decode.template.spec.restartPolicy must be Always: the pods belong to a Deployment;"
        " what ran before is left as it is",
    }  # fmt: skip
    assert ready.cluster.writes == ["status chat"]
    assert ready.infd()["status"]["decode"]["summary"] == "1/1"
    assert ready.infd()["status"]["url"] == "http://chat.team.svc:8000/v1", "it still serves there"
    ready.change(decode={})
    await ready.look()
    assert ready.condition("Accepted")["status"] == "True"
    assert ready.condition("Ready")["status"] == "True"


async def test_what_the_api_server_refuses_becomes_a_condition(world: World) -> None:
    world.cluster.failures["apply Deployment"] = ApiError(422, "spec.nodeSelectr: field not declared in schema")
    assert await world.look() == math.inf
    assert world.condition("Accepted")["reason"] == "RefusedByApiServer"
    assert "nodeSelectr" in world.condition("Ready")["message"]


@pytest.mark.parametrize("status", [0, 403, 409, 429, 500, 503])
async def test_other_errors_are_left_to_the_queue_which_tries_again(world: World, status: int) -> None:
    world.cluster.failures["apply Service"] = ApiError(status, "not now")
    with pytest.raises(ApiError):
        await world.look()
    world.cluster.failures.clear()
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("ReplicasOverridden")["status"] == "False", "what was never finished was not deleted"


@pytest.mark.parametrize("child", ["create Secret", "apply Service", "apply Deployment chat-router"])
async def test_a_quota_that_is_full_is_told_and_tried_again(world: World, child: str) -> None:
    quota = 'services "chat" is forbidden: exceeded quota: small, requested: services=1, used: services=5'
    world.cluster.failures[child] = ApiError(403, quota)
    with pytest.raises(ApiError, match="exceeded quota"):
        await world.look()
    said = world.condition("Ready")
    assert (said["status"], said["reason"]) == ("False", "Forbidden")
    assert "exceeded quota: small, requested: services=1, used: services=5; raise the quota" in said["message"]
    writes = list(world.cluster.writes)
    with pytest.raises(ApiError):
        await world.look()
    assert world.cluster.writes == writes, "the same words are not written again"
    world.cluster.failures.clear()
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("ReplicasOverridden")["status"] == "False"


async def test_a_quota_that_our_own_secret_has_filled_stops_nothing(ready: World) -> None:
    ready.cluster.failures["create Secret"] = ApiError(403, "secrets is forbidden: exceeded quota: small")
    ready.change(decode={"replicas": 2})
    await ready.settle()
    assert ready.infd()["status"]["decode"]["summary"] == "2/2"
    assert ready.condition("Ready")["status"] == "True"


async def test_a_pod_that_waits_for_a_deleted_token_brings_it_back_by_its_own_event(ready: World) -> None:
    """There is no right to watch Secrets: whatever calls for a look, such as a new pod, also makes the token anew."""
    del ready.cluster.objects[("Secret", "team", "chat-token")]
    ready.cluster.add(
        {
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "team", "labels": names.pod_labels("chat", "router", "0")},
            "status": {"phase": "Pending", "containerStatuses": []},
        }
    )
    await ready.look()
    assert ready.cluster.names("Secret") == ["chat-token"]


@pytest.mark.parametrize("spoilt", ["", "no json", "[]", '{"image": 5}'])
async def test_a_spoilt_annotation_of_a_pool_is_repaired_and_moves_no_pod(ready: World, spoilt: str) -> None:
    before = ready.revisions()
    for name in ready.cluster.names("Deployment"):
        annotations = ready.cluster.find_one("Deployment", name)["metadata"]["annotations"]
        if names.ANNOTATION_REVISION_INPUTS in annotations:
            annotations[names.ANNOTATION_REVISION_INPUTS] = spoilt
    await ready.look()
    assert ready.revisions() == before
    assert ready.condition("Accepted")["status"] == "True"
    assert ready.condition("ReplicasOverridden")["reason"] == "ChildEdited"


async def test_who_repeats_the_same_edit_does_not_flood_the_events(ready: World) -> None:
    pool = next(n for n in ready.cluster.names("Deployment") if "decode" in n)
    for _ in range(5):
        ready.cluster.edit("Deployment", pool, "autoscaler", {"f:spec": {"f:replicas": {}}}, replicas=7)
        await ready.look()
        assert ready.cluster.find_one("Deployment", pool)["spec"]["replicas"] == 1
    ready.cluster.edit("Deployment", pool, "autoscaler", {"f:spec": {"f:replicas": {}}}, replicas=8)
    await ready.look()
    notes = [notice.note for notice in ready.cluster.notices if notice.reason == "ReplicasOverridden"]
    assert ["7 -> 1" in note for note in notes] == [True, False]


async def test_a_namesake_made_later_is_not_blamed_for_old_edits(ready: World) -> None:
    del ready.cluster.objects[("Service", "team", "chat")]
    await ready.look()
    assert ready.condition("ReplicasOverridden")["status"] == "True"
    ready.cluster.objects.clear()
    again = body()
    again["metadata"]["uid"] = "another"
    ready.cluster.add(again)
    await ready.settle()
    assert ready.condition("Ready")["status"] == "True"
    assert ready.condition("ReplicasOverridden")["status"] == "False"


async def test_conditions_of_others_and_times_written_by_people_are_borne(ready: World) -> None:
    conditions = ready.infd()["status"]["conditions"]
    mine = next(c for c in conditions if c["type"] == "ReplicasOverridden")
    mine |= {"status": "True", "lastTransitionTime": "2029-12-31T23:50:00.123456+00:00"}
    conditions.insert(0, {**mine, "type": "Blessed"})
    await ready.look()
    assert ready.condition("ReplicasOverridden")["status"] == "False"
    ready.infd()["status"]["conditions"].insert(0, {**mine, "type": "Blessed"})
    ready.cluster.writes.clear()
    await ready.look()
    assert ready.cluster.writes == []


async def test_a_namespace_that_is_being_deleted_is_waited_for_without_errors(world: World) -> None:
    message = "unable to create new content in namespace team because it is being terminated"
    world.cluster.failures["create Secret"] = ApiError(403, message)
    with pytest.raises(Waiting, match="namespace team is being deleted"):
        await world.look()


async def test_nothing_is_pruned_on_a_list_that_failed(ready: World) -> None:
    before = dict(ready.cluster.objects)
    ready.change(model={"uri": "file:///models/other"})
    ready.cluster.failures["find Deployment"] = ApiError(500, "etcd is slow")
    with pytest.raises(ApiError):
        await ready.look()
    assert set(before) == set(ready.cluster.objects)


async def test_a_deployment_that_is_gone_is_forgotten(world: World) -> None:
    world.cluster.objects.clear()
    assert await world.look() is None
    deleting = body()
    deleting["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    world.cluster.add(deleting)
    assert await world.look() is None
    assert world.cluster.writes == []


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
