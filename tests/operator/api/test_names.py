"""Names, revisions, quantities."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.api import names
from tandem_operator.api.deployment import parse_deployment
from tandem_operator.api.quantity import parse_quantity, same_quantity

from tests.operator.builders import body, deployment, emulated_body

NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,44}[a-z0-9])?\Z")
DNS_LABEL = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")


@settings(max_examples=50)
@given(NAMES, st.text(max_size=50))
def test_names_of_children_are_dns_labels_for_every_name_that_the_api_server_lets_in(name: str, uri: str) -> None:
    revision = names.revision_of({"uri": uri})
    made = [names.router_name(name), names.endpoints_name(name), names.token_name(name)]
    for role in names.POOL_ROLES:
        made += [names.pool_name(name, role, revision), names.pool_service_name(name, role)]
    assert len(name) <= names.NAME_LIMIT
    for child in made:
        assert len(child) <= names.LABEL_LIMIT
        assert DNS_LABEL.match(child)
    assert len(set(made)) == len(made)


def test_the_limit_is_tight() -> None:
    longest = names.pool_name("x" * names.NAME_LIMIT, "prefill", names.revision_of({}))
    assert len(longest) == names.LABEL_LIMIT
    with pytest.raises(ValueError, match="47 characters"):
        parse_deployment(body("x" * 47))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"prefill": {"replicas": 5}}, True),
        ({"model": {"uri": "file:///models/tiny", "name": "other"}}, True),
        ({"router": {"waitForPods": "5s"}}, True),
        ({"model": {"uri": "file:///models/other"}}, False),
        ({"model": {"uri": "file:///models/tiny", "maxContextTokens": 64}}, False),
    ],
)
def test_a_revision_changes_with_what_must_match_between_the_pools_and_with_nothing_else(
    change: dict[str, object], same: bool
) -> None:
    before = names.revision_of(deployment().revision_inputs("image:1"))
    after = names.revision_of(deployment(**change).revision_inputs("image:1"))
    assert (before == after) is same
    assert re.fullmatch("[0-9a-f]{8}", after)


def test_image_and_emulated_class_are_part_of_the_revision() -> None:
    one = parse_deployment(emulated_body())
    other = parse_deployment(emulated_body(runtime={"executor": "Emulated", "emulated": {"hardwareClass": "l40s"}}))
    assert one.revision_inputs("a") != one.revision_inputs("b")
    assert one.revision_inputs("a") != other.revision_inputs("a")


def test_a_spec_that_the_schema_would_refuse_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"spec\.prefill\.replicas"):
        parse_deployment(body(prefill={"replicas": 0}))
    with pytest.raises(ValueError, match=r"spec\.model\.uri is required"):
        parse_deployment(body(model={}))


@pytest.mark.parametrize(
    ("one", "other"), [("1000m", "1"), (2, "2"), ("1024Mi", "1Gi"), ("1e3", "1k"), ("0.5", "500m"), ("1Ki", "1024")]
)
def test_quantities_are_compared_as_numbers(one: str | int, other: str) -> None:
    assert same_quantity(one, other)
    assert not same_quantity(one, "7")


def test_what_is_no_quantity_is_named() -> None:
    with pytest.raises(ValueError, match="'lots' is not a quantity"):
        parse_quantity("lots")
