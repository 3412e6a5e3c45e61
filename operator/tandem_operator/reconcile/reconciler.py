"""One look at one deployment: observe, plan, apply what differs, prune, report, and say when to look again."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tandem_operator.api import conditions as c
from tandem_operator.api import names
from tandem_operator.api.conditions import Reason
from tandem_operator.api.deployment import InferenceDeployment, parse_deployment
from tandem_operator.config import Settings
from tandem_operator.reconcile.difference import removal_patch
from tandem_operator.reconcile.drift import Drift, compare, count_drift, stamp
from tandem_operator.reconcile.errors import ApiError, Forbidden, Invalid, Waiting
from tandem_operator.reconcile.observe import Observed, observe, owned_by, router_revision
from tandem_operator.reconcile.placement import PlacementStep
from tandem_operator.reconcile.placing import Placing, Unplaced
from tandem_operator.reconcile.plan import Plan, make_plan
from tandem_operator.reconcile.repairs import Repairs
from tandem_operator.reconcile.report import (
    Statement,
    condition_of,
    describe,
    refused,
    role_state,
    role_status,
    same_status,
    unplaced,
    without_hardware,
    write_conditions,
)
from tandem_operator.reconcile.world import Cluster, Notice, Object
from tandem_operator.render.network import client_url, token_secret
from tandem_operator.render.pods import InvalidTemplate

Key = tuple[str, str]
"""(namespace, name)"""

log = logging.getLogger(__name__)


class Reconciler:
    """Holds no state of the cluster; only what was last repaired, so that it can be shown for a while."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        now: Callable[[], datetime],
        make_token: Callable[[], str] = lambda: secrets.token_hex(32),
        placement: PlacementStep | None = None,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._now = now
        self._make_token = make_token
        self._placement = placement or PlacementStep(None, None)
        self._repairs: Repairs[Key] = Repairs(settings.loop.override_visible_seconds)

    async def reconcile(self, key: Key) -> float | None:
        """Seconds until the next look, infinite: at the resync; None: it is gone. Raises ApiError and Waiting."""
        try:
            return await self._look(key)
        except ApiError as error:
            if error.namespace_ends:
                raise Waiting(f"namespace {key[0]} is being deleted", self._settings.loop.progress_seconds) from error
            raise

    async def _look(self, key: Key) -> float | None:
        namespace, name = key
        body = await self._cluster.get(names.KIND, namespace, name)
        if body is None or body["metadata"].get("deletionTimestamp"):
            self._repairs.forget(key)  # owner references collect the children
            self._placement.forget(key)
            return None
        observed = await observe(self._cluster, name, namespace, body["metadata"]["uid"])
        try:
            infd = self._parse(body)
            seen_generation = (body.get("status") or {}).get("observedGeneration", 0)
            placing = await self._placement.take(infd, observed, seen_generation)
            plan = self._plan(infd, observed, placing)
            drifts, wrote = await self._apply(body, infd, plan, observed)
        except Unplaced as problem:
            log.info("not placed: %s", problem.message, extra={"key": key})
            await self._report_unplaced(body, problem, observed)
            return math.inf  # nodes that come wake all deployments
        except Forbidden as problem:
            await self._report_refused(body, Reason.FORBIDDEN, problem.message, observed)
            raise problem.error from problem
        except Invalid as problem:
            log.info("refused: %s", problem.message, extra={"key": key})
            await self._report_refused(body, problem.reason, problem.message, observed)
            # Deleting the object that is in the way brings no event of ours.
            return self._settings.loop.progress_seconds if problem.reason == Reason.NAME_TAKEN else math.inf
        if wrote:
            observed = await observe(self._cluster, name, namespace, infd.uid)
        observed = await self._prune(infd, observed, placing)
        plan = self._plan(infd, observed, placing)
        await self._tell_drifts(body, self._repairs.news(key, body, drifts))
        override, override_ends = self._repairs.statement(key, body, drifts, self._now())
        states, statements = describe(name, observed, plan.revision, plan.serving_revision, placing.blocked)
        accepted = Statement(c.ACCEPTED, True, Reason.VALID, "the spec is valid")
        placed = Statement(c.PLACED, placing.holds, placing.reason, placing.message)
        if not placing.holds:
            statements = without_hardware(statements, placed)
        status: dict[str, Any] = {"revision": plan.revision, "url": client_url(name, namespace)}
        status |= {"placement": placing.status} if placing.status else {}
        status |= {state.role: role_status(state) for state in states if state.want}
        await self._report(body, status, [accepted, placed, override, *statements])
        waits = [override_ends] if override_ends else []
        if any(not s.status for s in statements if s.type != c.PROGRESSING) or self._moves(statements):
            waits.append(self._settings.loop.progress_seconds)
        return min(waits, default=math.inf)

    async def _report_refused(self, body: Object, reason: str, message: str, observed: Observed) -> None:
        await self._report_standing(body, refused(reason, message, observed.router() is not None), observed, {})

    async def _report_unplaced(self, body: Object, problem: Unplaced, observed: Observed) -> None:
        statements = unplaced(problem.reason, problem.message, observed.router() is not None)
        await self._report_standing(body, statements, observed, {"placement": problem.status} if problem.status else {})

    async def _report_standing(
        self, body: Object, statements: list[Statement], observed: Observed, more: dict[str, Any]
    ) -> None:
        """What ran before goes on, so its pods are still counted."""
        metadata = body["metadata"]
        current = router_revision(observed.router())
        states = [role_state(observed, role, current) for role in names.ROLES] if current else []
        fields = more | {state.role: role_status(state) for state in states if state.want}
        if current:
            fields["url"] = client_url(metadata["name"], metadata["namespace"])
        statements += [state.statement(metadata["name"]) for state in states]
        await self._report(body, fields, statements)

    @staticmethod
    def _moves(statements: list[Statement]) -> bool:
        return any(s.type == c.PROGRESSING and s.reason != Reason.ROLLOUT_COMPLETE for s in statements)

    def _parse(self, body: Object) -> InferenceDeployment:
        try:
            return parse_deployment(body)
        except ValueError as error:
            raise Invalid(Reason.INVALID_SPEC, str(error)) from error

    def _plan(self, infd: InferenceDeployment, observed: Observed, placing: Placing) -> Plan:
        try:
            return make_plan(infd, observed, self._settings.render, placing.hardware, self._now())
        except InvalidTemplate as error:
            raise Invalid(Reason.INVALID_TEMPLATE, str(error)) from error
        except ValueError as error:
            raise Invalid(Reason.INVALID_SPEC, str(error)) from error

    async def _apply(
        self, body: Object, infd: InferenceDeployment, plan: Plan, observed: Observed
    ) -> tuple[list[Drift], bool]:
        """Applies what differs; (drifts, whether anything was written).

        What is missing although this generation was reported before was deleted.
        """
        status = body.get("status") or {}
        settled = status.get("observedGeneration") == infd.generation and status.get("revision") == plan.revision
        drifts, wrote = [], False
        if await self._make_secret(infd, observed) and settled:
            drifts.append(Drift(Reason.CHILD_DELETED, f"Secret {names.token_name(infd.name)}", "somebody", ()))
        for want in map(stamp, plan.apply):
            key = (want["kind"], want["metadata"]["name"])
            live = observed.children.get(key) or await self._claim(want, infd)
            if live is None:
                if settled:
                    drifts.append(Drift(Reason.CHILD_DELETED, " ".join(key), "somebody", ()))
                await self._write(want)
                wrote = True
                continue
            found = compare(want, live)
            if found.removals:
                patch = removal_patch(list(found.removals), live["metadata"]["resourceVersion"])
                await self._patch(want, patch)
            if found.differs:
                await self._write(want)
            if found.drift:
                drifts.append(found.drift)
            wrote = wrote or found.differs or bool(found.removals)
        router = observed.router()
        if router and not any(want["metadata"]["name"] == router["metadata"]["name"] for want in plan.apply):
            count = infd.spec.router.replicas
            if router["spec"].get("replicas") != count:
                await self._scale(router, count)
                drifts += [count_drift(router, count)] if settled else []
                wrote = True
        return drifts, wrote

    async def _scale(self, live: Object, count: int) -> None:
        """A router that waits for its next revision: what it was made of is no longer in the spec, but its count is."""
        metadata = live["metadata"]
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "replace", "path": "/spec/replicas", "value": count},
        ]
        await self._patch(live, patch)

    async def _make_secret(self, infd: InferenceDeployment, observed: Observed) -> bool:
        """Whether it was missing. It cannot be read, so every look tries to make it.

        A full quota answers before the API server sees that it is there; where pods were made, it is.
        """
        name = names.token_name(infd.name)
        try:
            return await self._cluster.create(token_secret(infd, self._make_token(), self._make_token()))
        except ApiError as error:
            if not error.forbidden:
                raise
            if not any(kind == "Deployment" for kind, _ in observed.children):
                raise Forbidden(f"Secret {name}", error) from error
            log.info("Secret %s is taken to exist: %s", name, error, extra={"key": (infd.namespace, infd.name)})
            return False

    async def _claim(self, want: Object, infd: InferenceDeployment) -> Object | None:
        """The object that has our child's name but lacks our labels. Raises Invalid when it is not ours to touch."""
        kind, name = want["kind"], want["metadata"]["name"]
        live = await self._cluster.get(kind, infd.namespace, name)
        if live is None or owned_by(live, infd.uid):
            return live
        owners = live["metadata"].get("ownerReferences") or []
        if any(owner.get("kind") == names.KIND and owner.get("name") == infd.name for owner in owners):
            why = f"{kind} {name} belongs to a deleted {names.KIND} of the same name and is being collected"
            raise Waiting(why, self._settings.loop.collect_seconds)
        raise Invalid(
            Reason.NAME_TAKEN,
            f"{kind} {name} exists and does not belong to this {names.KIND}; delete it or choose another metadata.name",
        )

    async def _patch(self, child: Object, patch: list[Object]) -> None:
        metadata = child["metadata"]
        try:
            await self._cluster.patch_json(child["kind"], metadata["namespace"], metadata["name"], patch)
        except ApiError as error:
            if error.refused:  # its test of the resourceVersion failed
                why = f"{child['kind']} {metadata['name']} changed between read and repair"
                raise Waiting(why, self._settings.loop.conflict_seconds) from error
            raise

    async def _write(self, want: Object) -> None:
        name = f"{want['kind']} {want['metadata']['name']}"
        try:
            await self._cluster.apply(want)
        except ApiError as error:
            if error.refused:
                message = f"the API server refuses {name}: {error.message}; correct the spec or the template override"
                raise Invalid(Reason.REFUSED_BY_API_SERVER, message) from error
            if error.forbidden:
                raise Forbidden(name, error) from error
            raise
        owner = want["metadata"]["ownerReferences"][0]["name"]
        log.info("applied %s", name, extra={"key": (want["metadata"]["namespace"], owner)})

    async def _prune(self, infd: InferenceDeployment, observed: Observed, placing: Placing) -> Observed:
        """Planned afresh from what is there after the apply, so that nothing goes that still takes traffic."""
        children = dict(observed.children)
        for name in self._plan(infd, observed, placing).prunable_pools(observed):
            child = children.pop(("Deployment", name))
            await self._cluster.delete("Deployment", infd.namespace, name, child["metadata"]["uid"])
            log.info("pruned Deployment %s", name, extra={"key": (infd.namespace, infd.name)})
        return Observed(children, observed.pods)

    async def _tell_drifts(self, body: Object, drifts: list[Drift]) -> None:
        for drift in drifts:
            note = drift.sentence(body["metadata"]["name"])
            await self._cluster.notify(body, Notice("Warning", c.REPLICAS_OVERRIDDEN, "Repair", note))

    async def _report(self, body: Object, fields: dict[str, Any], statements: list[Statement]) -> None:
        """Writes status only when it differs; Ready, Accepted and Progressing also become Events when they change."""
        metadata = body["metadata"]
        old = body.get("status") or {}
        generation = metadata.get("generation", 0)
        conditions = write_conditions(statements, old.get("conditions") or [], generation, self._now())
        status = {"observedGeneration": generation, **fields, "conditions": conditions}
        if same_status(status, old):
            return
        await self._cluster.apply_status(
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
                "status": status,
            }
        )
        for new in conditions:
            before = condition_of(body, new["type"])
            changed = before is None or (before["status"], before["reason"]) != (new["status"], new["reason"])
            if changed and (notice := _notice_of(new)):
                await self._cluster.notify(body, notice)


def _notice_of(condition: dict[str, Any]) -> Notice | None:
    """Events tell the story of a deployment: rolling out, rolled out, ready, not ready and why."""
    kind, status, reason = condition["type"], condition["status"], condition["reason"]
    if kind == c.PROGRESSING and reason in (Reason.ROLLING_OUT, Reason.ROLLOUT_COMPLETE):
        return Notice("Normal", reason, "Rollout", condition["message"])
    if kind == c.PLACED and reason == Reason.CHOSEN:
        return Notice("Normal", "Placed", "Place", condition["message"])
    if kind != c.READY or reason in (Reason.PODS_STARTING, Reason.ROLLING_OUT):
        return None
    return Notice("Normal" if status == "True" else "Warning", reason, "Report", condition["message"])
