"""Fresh state, read when it is needed and never cached: our children, their pods, and who else holds their names."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from tandem_runtime.contracts.names import LABEL_DEPLOYMENT, LABEL_MANAGED_BY, LABEL_REVISION, LABEL_ROLE, MANAGED_BY

from tandem_operator.reconcile.world import Cluster, Object

CHILD_KINDS = ("Deployment", "Service", "ConfigMap")
OVERDUE: Final = timedelta(seconds=60)
"""A pod that should have ended so long ago is on a node that answers no more."""


@dataclass(frozen=True)
class Observed:
    """Children by (kind, name), and pods."""

    children: dict[tuple[str, str], Object] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)

    def deployments(self, role: str) -> dict[str, Object]:
        """Deployments of a role by revision."""
        return {
            label(child, LABEL_REVISION): child
            for (kind, _), child in self.children.items()
            if kind == "Deployment" and label(child, LABEL_ROLE) == role
        }

    def router(self) -> Object | None:
        return next(iter(self.deployments("router").values()), None)


def label(body: Object, key: str) -> str:
    return str(body.get("metadata", {}).get("labels", {}).get(key, ""))


def owned_by(body: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in body["metadata"].get("ownerReferences") or [])


async def observe(cluster: Cluster, name: str, namespace: str, uid: str) -> Observed:
    """Lists are complete or raise ApiError, so that a prune never acts on a part."""
    selector = {LABEL_DEPLOYMENT: name, LABEL_MANAGED_BY: MANAGED_BY}
    children: dict[tuple[str, str], Object] = {}
    for kind in CHILD_KINDS:
        for body in await cluster.find(kind, namespace, selector):
            if owned_by(body, uid):
                children[(kind, body["metadata"]["name"])] = body
    return Observed(children, await cluster.find("Pod", namespace, selector))


def is_available(deployment: Object | None) -> bool:
    """All wanted pods of the newest template are ready."""
    if deployment is None:
        return False
    status: dict[str, Any] = deployment.get("status") or {}
    want = deployment["spec"].get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return bool(seen and status.get("updatedReplicas", 0) >= want and status.get("availableReplicas", 0) >= want)


def is_rolled_out(deployment: Object | None) -> bool:
    """Available, and no pod of an older template is left."""
    if deployment is None or not is_available(deployment):
        return False
    return bool(deployment["status"].get("replicas", 0) == deployment["status"].get("updatedReplicas", 0))


def routers_alive(observed: Observed, now: datetime | None) -> set[str]:
    """Revisions of router pods that may still answer, those on their way out included."""
    return {
        label(pod, LABEL_REVISION)
        for pod in observed.pods
        if label(pod, LABEL_ROLE) == "router"
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        and not _is_overdue(pod, now)
    }


def _is_overdue(pod: Object, now: datetime | None) -> bool:
    """`deletionTimestamp` is when its grace ends."""
    ends = pod["metadata"].get("deletionTimestamp")
    return bool(ends and now and datetime.fromisoformat(str(ends)) + OVERDUE < now)


def router_revision(router: Object | None) -> str | None:
    return label(router["spec"]["template"], LABEL_REVISION) if router else None
