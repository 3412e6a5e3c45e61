"""Stories of the loop against a fake cluster: what cannot be done is said, and what runs stays."""

from __future__ import annotations

import math

import pytest
from tandem_operator.reconcile.errors import ApiError, Waiting

from tests.operator.builders import body
from tests.operator.world import World


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


async def test_a_namespace_that_is_being_deleted_is_waited_for_without_errors(world: World) -> None:
    message = "unable to create new content in namespace team because it is being terminated"
    world.cluster.failures["create Secret"] = ApiError(403, message)
    with pytest.raises(Waiting, match="namespace team is being deleted"):
        await world.look()


async def test_a_deployment_that_is_gone_is_forgotten(world: World) -> None:
    world.cluster.objects.clear()
    assert await world.look() is None
    deleting = body()
    deleting["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    world.cluster.add(deleting)
    assert await world.look() is None
    assert world.cluster.writes == []
