"""Pure: an AdmissionReview in, its answer out. What does not concern placement is let through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from tandem_operator.api import names
from tandem_operator.api.deployment import InferenceDeployment, parse_deployment
from tandem_operator.performance.config_fields import ConfigError
from tandem_operator.performance.config_reader import read_shape
from tandem_operator.placement.problem import ROLES, Problem
from tandem_operator.placement.verdict import Verdict, judge
from tandem_operator.reconcile.world import Object

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
WARNING_CHARACTERS: Final = 256
"""Longer ones may be cut by the API server."""
WARNINGS_CHARACTERS: Final = 4096
"""Of all together; the API server drops what is beyond."""
UNPROCESSABLE: Final = 422

Pose = Callable[[InferenceDeployment], Problem | None]
"""The problem that placement would solve for a deployment; None: it would not choose."""


class Malformed(ValueError):
    """No AdmissionReview that could be answered."""


def read_request(review: Any) -> Object:
    """Raises Malformed."""
    if not isinstance(review, dict) or review.get("kind") != KIND:
        raise Malformed(f"this serves {KIND} of {API_VERSION}, nothing else")
    if review.get("apiVersion") != API_VERSION:
        raise Malformed(f"{KIND} is of {review.get('apiVersion')!r}; only {API_VERSION} is served")
    request = review.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str) or not request["uid"]:
        raise Malformed(f"{KIND} lacks request.uid")
    return request


def review(request: Object, pose: Pose) -> Verdict:
    """Of creations and changes of our kind. A change that does not touch placement is never refused: what was taken
    once must stay editable, whatever has become of the nodes."""
    body, before = request.get("object"), request.get("oldObject")
    kind = (request.get("kind") or {}).get("kind")
    if request.get("operation") not in ("CREATE", "UPDATE") or kind != names.KIND or not isinstance(body, dict):
        return Verdict()
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("deletionTimestamp"):
        return Verdict()
    if isinstance(before, dict) and before.get("spec") == body.get("spec"):
        return Verdict()
    try:
        infd = parse_deployment({**body, "metadata": {**metadata, "name": metadata.get("name") or "unnamed"}})
    except ValueError as error:
        return Verdict(refusal=str(error))
    problem = pose(infd)
    if problem is None:
        return Verdict(warnings=tuple(_unread(infd)))
    verdict = judge(problem)
    if verdict.refusal and isinstance(before, dict) and _same_question(_posed(before, pose), problem):
        return Verdict(warnings=(verdict.refusal, *verdict.warnings))
    return verdict


def answer(request: Object, verdict: Verdict) -> Object:
    """The AdmissionReview to send back."""
    response: Object = {"uid": request["uid"], "allowed": not verdict.refusal}
    if verdict.refusal:
        response["status"] = {"code": UNPROCESSABLE, "reason": "Invalid", "message": verdict.refusal}
    if verdict.warnings:
        response["warnings"] = list(_fitting(verdict.warnings))
    return {"apiVersion": API_VERSION, "kind": KIND, "response": response}


def _unread(infd: InferenceDeployment) -> Iterator[str]:
    """What was given and is of no use, or not yet."""
    if infd.spec.model.config is not None:
        try:
            read_shape(infd.spec.model.config)
        except ConfigError as error:
            yield f"spec.model.config is not understood, so that nothing is placed by it: {error}"
    elif infd.spec.slo:
        yield (
            "spec.slo was not checked: the model's config.json or the cluster's devices are not known here;"
            " condition Placed will say more, and with spec.model.config it is checked at once"
        )


def _same_question(one: Problem | None, other: Problem) -> bool:
    """But for how many replicas are wanted: that never makes a deployment impossible."""
    return one is not None and _of_one_replica(one) == _of_one_replica(other)


def _of_one_replica(problem: Problem) -> Problem:
    wishes = {str(role): msgspec.structs.replace(problem.wish(role), replicas=None) for role in ROLES}
    return msgspec.structs.replace(problem, prefill=wishes["prefill"], decode=wishes["decode"])


def _posed(body: Object, pose: Pose) -> Problem | None:
    try:
        return pose(parse_deployment(body))
    except ValueError:
        return None


def _fitting(warnings: tuple[str, ...]) -> Iterator[str]:
    """In pieces that arrive whole."""
    left = WARNINGS_CHARACTERS
    for text in warnings:
        for piece in split(text):
            left -= len(piece.encode())
            if left < 0:
                return
            yield piece


def split(text: str, limit: int = WARNING_CHARACTERS) -> Iterator[str]:
    """At line ends, then at blanks; line breaks may not stand in a header."""
    for line in text.splitlines():
        rest = line.strip()
        while len(rest.encode()) > limit:
            head = rest.encode()[:limit].decode(errors="ignore")
            cut = head.rfind(" ")
            head = head[:cut] if cut > 0 else head
            yield head
            rest = rest[len(head) :].strip()
        if rest:
            yield rest
