"""Promised devices: counted until pods hold them, never against who made the claim."""

from __future__ import annotations

from tandem_operator.placement.catalogue import bundled
from tandem_operator.placement.facts import NodeFacts, PodFacts
from tandem_operator.placement.inventory import Inventory
from tandem_operator.reconcile.claims import Claims

GPU = "nvidia.com/gpu"


def inventory() -> Inventory:
    made = Inventory(bundled().values())
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    made.put_node(NodeFacts(name="n", labels=labels, devices={GPU: 8}))
    return made


def test_claims_of_others_are_summed_by_size_and_ones_own_do_not_count() -> None:
    claims = Claims(inventory())
    claims.put("a/x", (("h100-sxm", 4, 1), ("h100-sxm", 4, 1)))
    claims.put("a/y", (("h100-sxm", 4, 2), ("l40s", 1, 3)))
    assert claims.outstanding("h100-sxm", besides="a/z") == [(4, 4)]
    assert claims.outstanding("h100-sxm", besides="a/x") == [(4, 2)]
    assert claims.outstanding("l40s", besides="a/y") == []


def test_a_claim_goes_down_as_its_pods_take_their_devices_and_comes_back_when_they_go() -> None:
    world = inventory()
    claims = Claims(world)
    claims.put("a/x", (("h100-sxm", 2, 3),))
    world.put_pod(PodFacts(key="a/p", node="n", devices={GPU: 2}, owner="a/x"))
    assert claims.outstanding("h100-sxm", besides="") == [(2, 2)]
    world.remove_pod("a/p")
    assert claims.outstanding("h100-sxm", besides="") == [(2, 3)]


def test_a_new_claim_replaces_the_old_and_a_deleted_deployment_claims_nothing() -> None:
    claims = Claims(inventory())
    claims.put("a/x", (("h100-sxm", 2, 3),))
    claims.put("a/x", (("h100-sxm", 8, 1),))
    assert claims.outstanding("h100-sxm", besides="") == [(8, 1)]
    claims.forget("a/x")
    claims.forget("a/unknown")
    assert claims.outstanding("h100-sxm", besides="") == []
