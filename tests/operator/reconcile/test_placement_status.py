"""status.placement stays within what the API server takes, however many classes there are."""

from __future__ import annotations

from tandem_operator.api.status import RolePlacement
from tandem_operator.placement.candidates import Refusal, Rejection
from tandem_operator.reconcile.placement_status import LISTED, plain_role, refused_roles
from tandem_operator.reconcile.record import RoleRecord


def test_of_very_many_rejections_the_nearest_are_told() -> None:
    items = tuple(Rejection(f"class-{number % 36}", f"reason {number}") for number in range(200))
    told = refused_roles(Refusal("none", items, ()))["prefill"]["rejected"]
    assert [one["reason"] for one in told] == [f"reason {number}" for number in range(LISTED)]
    classes = tuple(f"class-{number}" for number in range(100))
    assert len(plain_role(RoleRecord(classes=classes, resource="x/y", devices=1), "")["classes"]) == LISTED


def test_the_limit_is_that_of_the_definition() -> None:
    for field in ("rejected", "classes"):
        assert RolePlacement.model_fields[field].json_schema_extra == {"maxItems": LISTED}
