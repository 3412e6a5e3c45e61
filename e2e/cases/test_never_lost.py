"""Pods, routers and revisions that go under load: every stream is answered, token by token, to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest

from e2e.cases.load import Load
from e2e.cases.manifests import emulated
from e2e.stack import Stack, wait_until

FORCE = ("--grace-period=0", "--force")


@pytest.fixture(scope="module")
def fleet(stack: Stack, shared_namespace: str) -> str:
    """Two pods of every role, ready; returns their namespace."""
    stack.apply(emulated("fleet", 2, 2, 2), shared_namespace)
    stack.wait_ready("fleet", shared_namespace)
    return shared_namespace


@pytest.fixture(scope="module")
def streams(stack: Stack, fleet: str) -> Iterator[Load]:
    """Load from before the first test to after the last."""
    with Load(stack, fleet, "fleet") as load:
        yield load


@pytest.fixture
def load(streams: Load) -> Iterator[Load]:
    """Streams that ended during the test were answered, and so were some that began after what it did."""
    ended = len(streams.look()["results"])
    yield streams
    wait_until("answers at the end", 60, streams.succeeds_again())
    streams.check(ended)


@pytest.mark.parametrize("how", [FORCE, ()], ids=["killed", "deleted"])
def test_pods_that_go_cost_no_request(stack: Stack, fleet: str, load: Load, how: tuple[str, ...]) -> None:
    for role in ("prefill", "decode"):
        victim = stack.pods(fleet, "fleet", role)[0]["metadata"]["name"]
        stack.cluster.kubectl("delete", "pod", victim, "--namespace", fleet, "--wait=false", *how)
        wait_until(f"a new {role} pod", 120, partial(is_whole, stack, fleet, role, victim))
    stack.wait_ready("fleet", fleet, 120)


def test_a_router_that_is_deleted_finishes_what_it_has_and_the_other_takes_the_rest(
    stack: Stack, fleet: str, load: Load
) -> None:
    victim = stack.pods(fleet, "fleet", "router")[0]["metadata"]["name"]
    stack.cluster.kubectl("delete", "pod", victim, "--namespace", fleet, "--wait=false")
    wait_until("a new router", 120, partial(is_whole, stack, fleet, "router", victim))
    wait_until("the end of the old one", 120, lambda: victim not in str(stack.get("pods", namespace=fleet)))


def test_a_pool_is_scaled_by_editing_the_spec_and_nothing_is_lost(stack: Stack, fleet: str, load: Load) -> None:
    for replicas in (3, 1, 2):
        patch = json.dumps({"spec": {"decode": {"replicas": replicas}}})
        stack.cluster.kubectl("patch", "infd", "fleet", "-n", fleet, "--type=merge", "--patch", patch)
        stack.wait_ready("fleet", fleet, 120)
        wait_until(f"{replicas} decode pods", 120, partial(has_pods, stack, fleet, "decode", replicas))
        assert stack.get("infd", "fleet", fleet)["status"]["decode"]["summary"] == f"{replicas}/{replicas}"


def test_a_new_revision_takes_over_only_when_it_can_serve_and_nothing_is_lost(
    stack: Stack, fleet: str, load: Load
) -> None:
    old = stack.get("infd", "fleet", fleet)["status"]["revision"]
    patch = json.dumps({"spec": {"model": {"maxContextTokens": 4096}}})

    def only_new() -> bool:
        revisions = {pod["metadata"]["labels"]["tandem.dev/revision"] for pod in stack.pods(fleet, "fleet")}
        return len(revisions) == 1 and old not in revisions

    stack.cluster.kubectl("patch", "infd", "fleet", "-n", fleet, "--type=merge", "--patch", patch)
    stack.wait_ready("fleet", fleet, 180)
    wait_until("only the new revision is left", 120, only_new)


def is_whole(stack: Stack, namespace: str, role: str, without: str) -> bool:
    """Two ready pods of the role, none of them the one that went."""
    pods = stack.pods(namespace, "fleet", role)
    ready = [
        pod["metadata"]["name"]
        for pod in pods
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    ]
    return len(ready) == 2 and without not in ready


def has_pods(stack: Stack, namespace: str, role: str, count: int) -> bool:
    """Whether that many pods of the role stand."""
    return len(stack.pods(namespace, "fleet", role)) == count
