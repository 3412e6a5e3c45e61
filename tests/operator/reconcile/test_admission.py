"""AdmissionReviews as API servers send them, and as nobody should."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.placement.problem import Objective, Problem, Wish
from tandem_operator.placement.verdict import Verdict
from tandem_operator.reconcile.admission import (
    WARNING_CHARACTERS,
    WARNINGS_CHARACTERS,
    Malformed,
    answer,
    read_request,
    review,
    split,
)

from tests.operator.builders import body, emulated_body
from tests.operator.placement.fleets import H100, LLAMA_8B, problem

Json = dict[str, Any]
IMPOSSIBLE = Objective(ttft_s=0.001, tpot_s=0.0001)


def request(operation: str = "CREATE", before: Json | None = None, **spec: Any) -> Json:
    return {
        "uid": "705ab4f5",
        "kind": {"group": "tandem.dev", "version": "v1alpha1", "kind": "InferenceDeployment"},
        "operation": operation,
        "object": emulated_body("fleet", **spec),
        "oldObject": before,
    }


def impossible(infd: InferenceDeployment) -> Problem | None:
    """Every deployment is the same impossible problem, but for what is wished of prefill."""
    pool = infd.spec.prefill
    return problem(LLAMA_8B, H100, objective=IMPOSSIBLE, prefill=Wish(replicas=pool.replicas, gpus=pool.gpus))


def test_what_cannot_work_is_refused_on_creation() -> None:
    assert "TPOT" in review(request(), impossible).refusal or "TTFT" in review(request(), impossible).refusal


def test_what_placement_does_not_choose_is_taken() -> None:
    assert review(request(), lambda infd: None) == Verdict()


def test_model_facts_that_are_not_understood_are_doubted() -> None:
    (warning,) = review(request(model={"config": {"model_type": "llama"}}), lambda infd: None).warnings
    assert warning.startswith("spec.model.config is not understood")


def test_objectives_that_cannot_be_checked_yet_are_said_to_be_unchecked() -> None:
    slo = [{"class": "chat", "ttft": {"base": "1s"}, "tpot": "50ms"}]
    (warning,) = review(request(slo=slo), lambda infd: None).warnings
    assert warning.startswith("spec.slo was not checked")


@pytest.mark.parametrize("operation", ["DELETE", "CONNECT", None])
def test_other_operations_are_let_through(operation: str) -> None:
    assert review(request(operation), impossible) == Verdict()


def test_another_kind_is_let_through() -> None:
    other = {**request(), "kind": {"kind": "Pod"}}
    assert review(other, impossible) == Verdict()
    assert review({**other, "kind": None}, impossible) == Verdict()


def test_labels_and_finalizers_of_an_impossible_deployment_can_be_changed() -> None:
    changed = request("UPDATE", before=emulated_body("fleet"))
    changed["object"]["metadata"]["labels"] = {"team": "a"}
    assert review(changed, impossible) == Verdict()


def test_one_that_is_being_deleted_is_let_through() -> None:
    leaving = request("UPDATE", before=emulated_body("fleet"), prefill={"replicas": 2})
    leaving["object"]["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert review(leaving, impossible) == Verdict()


@pytest.mark.parametrize("change", [{"router": {"replicas": 2}}, {"prefill": {"replicas": 2}}])
def test_a_change_that_does_not_touch_placement_is_warned_not_refused(change: Json) -> None:
    """Its nodes may be gone by now; that must not keep anybody from changing the router, or from scaling."""
    verdict = review(request("UPDATE", before=emulated_body("fleet"), **change), impossible)
    assert verdict.refusal == ""
    assert "objective" in verdict.warnings[0]


def test_a_change_to_something_impossible_is_refused() -> None:
    assert review(request("UPDATE", before=emulated_body("fleet"), prefill={"gpus": 1}), impossible).refusal


def test_a_stored_object_that_no_longer_follows_the_schema_can_be_repaired() -> None:
    broken = emulated_body("fleet", router={"replicas": "many"})
    repaired = request("UPDATE", before=broken)
    assert review(repaired, lambda infd: None) == Verdict()


def test_a_spec_that_cannot_be_read_is_refused_with_the_sentence_of_the_reconcile_loop() -> None:
    wrong = {**request(), "object": body("fleet", model={})}
    assert "spec.model.uri is required" in review(wrong, impossible).refusal


def test_a_generated_name_is_no_obstacle() -> None:
    unnamed = request()
    del unnamed["object"]["metadata"]["name"]
    unnamed["object"]["metadata"]["generateName"] = "fleet-"
    assert review(unnamed, lambda infd: None) == Verdict()


def test_the_answer_has_the_uid_of_the_question() -> None:
    refused = answer(request(), Verdict(refusal="no", warnings=("w",)))
    assert refused["apiVersion"] == "admission.k8s.io/v1"
    assert refused["response"] == {
        "uid": "705ab4f5",
        "allowed": False,
        "status": {"code": 422, "reason": "Invalid", "message": "no"},
        "warnings": ["w"],
    }
    assert answer(request(), Verdict())["response"] == {"uid": "705ab4f5", "allowed": True}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "text",
        7,
        {},
        {"kind": "AdmissionReview"},
        {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "1"}},
        {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"},
        {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": []},
        {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": ""}},
        {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": 5}},
    ],
)
def test_what_is_no_review_is_malformed(wrong: Any) -> None:
    with pytest.raises(Malformed):
        read_request(wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON, JSON)
def test_no_object_whatever_it_is_breaks_a_review(body: Any, before: Any, metadata: Any) -> None:
    asked = {**request("UPDATE"), "object": body, "oldObject": before}
    review(asked, impossible)
    review({**asked, "object": {"metadata": metadata, "spec": body}}, impossible)


@given(st.lists(st.text(max_size=700), max_size=30))
def test_warnings_are_cut_so_that_they_arrive_whole(texts: list[str]) -> None:
    warnings = answer(request(), Verdict(warnings=tuple(texts)))["response"].get("warnings", [])
    assert all(0 < len(text.encode()) <= WARNING_CHARACTERS for text in warnings)
    assert sum(len(text.encode()) for text in warnings) <= WARNINGS_CHARACTERS
    assert not any("\n" in text or "\r" in text for text in warnings)


def test_a_long_sentence_is_cut_between_words() -> None:
    text = "weights 141 + KV 8 + overhead 3 " * 20
    pieces = list(split(text))
    assert " ".join(pieces) == text.strip()
    assert all(len(piece) <= WARNING_CHARACTERS for piece in pieces)
