"""Stories of the loop against a fake cluster: what others change is repaired, reported, or left to them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tandem_operator.api import names
from tandem_operator.reconcile.errors import ApiError, Waiting

from tests.operator.builders import body
from tests.operator.world import World


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


async def test_nothing_is_pruned_on_a_list_that_failed(ready: World) -> None:
    before = dict(ready.cluster.objects)
    ready.change(model={"uri": "file:///models/other"})
    ready.cluster.failures["find Deployment"] = ApiError(500, "etcd is slow")
    with pytest.raises(ApiError):
        await ready.look()
    assert set(before) == set(ready.cluster.objects)
