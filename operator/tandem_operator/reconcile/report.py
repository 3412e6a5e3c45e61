"""Pure: what was observed -> status and conditions. Ready sums up and says why not, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from tandem_runtime.contracts.names import LABEL_REVISION, LABEL_ROLE

from tandem_operator.api import conditions as c
from tandem_operator.api import names
from tandem_operator.api.conditions import Reason
from tandem_operator.reconcile.observe import Observed, is_available, is_rolled_out, label, router_revision
from tandem_operator.reconcile.pods import Problem, find_problem, lacks_devices, refused_pods
from tandem_operator.reconcile.world import Object

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Statement:
    """A condition without its times."""

    type: str
    status: bool
    reason: str
    message: str


@dataclass(frozen=True)
class RoleState:
    """Pods of one role at one revision."""

    role: str
    revision: str
    ready: int
    want: int
    available: bool
    problem: Problem | None

    @property
    def summary(self) -> str:
        return f"{self.ready}/{self.want}"

    def statement(self, name: str) -> Statement:
        kind = c.AVAILABLE_OF_ROLE[self.role]
        if self.want == 0:
            return Statement(kind, False, Reason.NOT_CREATED, f"no {self.role} Deployment yet; look again in a moment")
        if self.ready >= self.want:
            return Statement(kind, True, Reason.AVAILABLE, f"{self.summary} {self.role} pods ready")
        if self.problem:
            return Statement(
                kind, False, self.problem.reason, f"{self.summary} {self.role} pods ready: {self.problem.message}"
            )
        where = f"kubectl get pods -l tandem.dev/deployment={name},tandem.dev/role={self.role}"
        return Statement(
            kind,
            False,
            Reason.PODS_STARTING,
            f"{self.summary} {self.role} pods ready, the others start; watch with {where}",
        )


def role_state(observed: Observed, role: str, revision: str, blocked: Mapping[str, str] = NOTHING) -> RoleState:
    """Of the pods of `revision`; a router is one Deployment through all revisions.

    `blocked`: by role, what placement knows of pods that find no node.
    """
    deployment = observed.router() if role == "router" else observed.deployments(role).get(revision)
    if deployment is None:
        return RoleState(role, revision, 0, 0, False, None)
    want = int(deployment["spec"].get("replicas", 1))
    ready = min(int((deployment.get("status") or {}).get("readyReplicas", 0)), want)
    pods = [
        pod
        for pod in observed.pods
        if label(pod, LABEL_ROLE) == role and (role == "router" or label(pod, LABEL_REVISION) == revision)
    ]
    # A new template of the router comes up beside the old one, which is ready meanwhile; a pool has one of its own.
    settled = ready >= want and (is_rolled_out(deployment) if role == "router" else is_available(deployment))
    problem = None if settled else refused_pods(deployment) or find_problem(pods)
    if problem and problem.reason == Reason.UNSCHEDULABLE and role in blocked and lacks_devices(problem):
        problem = Problem(Reason.WAITING_FOR_CAPACITY, f"{blocked[role]}; {problem.message}")
    if role == "router":
        revision = router_revision(deployment) or revision
    return RoleState(role, revision, ready, want, is_available(deployment), problem)


def describe(
    name: str, observed: Observed, revision: str, serving_revision: str, blocked: Mapping[str, str] = NOTHING
) -> tuple[list[RoleState], list[Statement]]:
    """States of the roles that take traffic, and all statements but Accepted and ReplicasOverridden."""
    serving = [role_state(observed, role, serving_revision, blocked) for role in names.ROLES]
    coming = [role_state(observed, role, revision, blocked) for role in names.POOL_ROLES]
    progress = _progress(observed, coming, revision, serving_revision)
    available = [state.statement(name) for state in serving]
    return serving, [*available, progress, _ready(serving, available, progress)]


def _progress(observed: Observed, coming: list[RoleState], revision: str, serving_revision: str) -> Statement:
    router = role_state(observed, "router", revision)
    done = revision == serving_revision and is_rolled_out(observed.router())
    if done and all(is_rolled_out(observed.deployments(state.role).get(revision)) for state in coming):
        return Statement(c.PROGRESSING, False, Reason.ROLLOUT_COMPLETE, f"revision {revision} is rolled out")
    counts = ", ".join(f"{state.role} {state.summary}" for state in [*coming, router])
    old = "" if revision == serving_revision else f"; revision {serving_revision} goes on serving meanwhile"
    problem = next((state.problem for state in [*coming, router] if state.problem), None)
    if problem:
        text = f"revision {revision} ({counts}) does not come up: {problem.message}{old}"
        return Statement(c.PROGRESSING, False, problem.reason, text)
    return Statement(c.PROGRESSING, True, Reason.ROLLING_OUT, f"revision {revision} is coming: {counts} ready{old}")


def _ready(serving: list[RoleState], available: list[Statement], progress: Statement) -> Statement:
    """True when what the spec says is what runs: all pods of its revision are ready, and they take the traffic."""
    summary = ", ".join(f"{state.role} {state.summary}" for state in serving)
    serves = f" (it goes on serving with {summary})" if all(state.ready for state in serving) else ""
    broken = [one for state, one in zip(serving, available, strict=True) if not one.status and state.problem]
    lacking = [one for one in available if not one.status]
    if first := next(iter([*broken, *lacking]), None):
        return Statement(c.READY, False, first.reason, first.message + serves)
    if progress.reason != Reason.ROLLOUT_COMPLETE:
        return Statement(c.READY, False, progress.reason, progress.message)
    return Statement(c.READY, True, Reason.SERVING, f"all pods are ready: {summary}")


def refused(reason: str, message: str, runs: bool) -> list[Statement]:
    """Accepted=False: nothing is touched, and what ran before goes on."""
    rest = "; what ran before is left as it is" if runs else ""
    return [
        Statement(c.ACCEPTED, False, reason, message + rest),
        Statement(c.READY, False, reason, message + rest),
    ]


def unplaced(reason: str, message: str, runs: bool) -> list[Statement]:
    """Placed=False: the spec is fine, but no hardware that it allows can do it."""
    rest = "; what ran before is left as it is" if runs else ""
    return [
        Statement(c.ACCEPTED, True, Reason.VALID, "the spec is valid"),
        Statement(c.PLACED, False, reason, message + rest),
        Statement(c.READY, False, reason, message + rest),
    ]


def without_hardware(statements: list[Statement], placed: Statement) -> list[Statement]:
    """Ready says first that nothing can work as the spec wants it, unless pods are in trouble already."""
    message = f"{placed.message}; it goes on serving"
    ready = Statement(c.READY, False, placed.reason, message)
    return [ready if one.type == c.READY and one.status else one for one in statements]


def write_conditions(
    statements: list[Statement], previous: list[dict[str, Any]], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Statements with times; lastTransitionTime moves only when the status does."""
    before = {old["type"]: old for old in previous}
    written = []
    for statement in sorted(statements, key=lambda s: c.TYPES.index(s.type)):
        status = "True" if statement.status else "False"
        old = before.get(statement.type)
        since = old["lastTransitionTime"] if old and old["status"] == status else timestamp(now)
        written.append(
            {
                "type": statement.type,
                "status": status,
                "reason": statement.reason,
                "message": statement.message,
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return written


def role_status(state: RoleState) -> dict[str, Any]:
    return {"ready": state.ready, "want": state.want, "summary": state.summary, "revision": state.revision}


def same_status(status: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether writing `status` would change nothing; conditions of others, and the order of ours, do not count."""

    def ours(one: dict[str, Any]) -> dict[str, Any]:
        return {item["type"]: item for item in one.get("conditions") or [] if item["type"] in c.TYPES}

    return {**status, "conditions": ours(status)} == {**old, "conditions": ours(old)}


def timestamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    """Any RFC 3339: a person may have written it."""
    return datetime.fromisoformat(text)


def condition_of(body: Object, kind: str) -> dict[str, Any] | None:
    found = (body.get("status") or {}).get("conditions") or []
    return next((item for item in found if item["type"] == kind), None)
