"""Pure: what others did to our children. It is repaired, and said aloud: who, what, and where to change it instead."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from tandem_operator.api.conditions import Reason
from tandem_operator.reconcile.difference import (
    OWNED_ROOTS,
    Difference,
    differences,
    dotted,
    foreign_additions,
    foreign_managers,
)
from tandem_operator.reconcile.world import Object

ANNOTATION_APPLIED: Final = "tandem.dev/applied"
STAMP_LENGTH: Final = 16
SHOWN: Final = 3
"""Paths named in a message; the count says how many more there are."""


@dataclass(frozen=True)
class Drift:
    """One child that somebody else changed or deleted."""

    reason: str
    child: str
    who: str
    changes: tuple[str, ...]

    def sentence(self, infd_name: str) -> str:
        if self.reason == Reason.CHILD_DELETED:
            return f"{self.child} was deleted by somebody else; made anew. Instead: kubectl edit infd {infd_name}"
        more = f" and {len(self.changes) - SHOWN} more" if len(self.changes) > SHOWN else ""
        what = ", ".join(self.changes[:SHOWN]) + more
        return f"{self.who} changed {self.child} ({what}); repaired. Instead: kubectl edit infd {infd_name}"


@dataclass(frozen=True)
class Comparison:
    """What to do about one live child."""

    differs: bool
    removals: tuple[tuple[str | int, ...], ...]
    drift: Drift | None


def stamp(want: Object) -> Object:
    """`want` with the hash of itself as an annotation: what the live object was last brought to."""
    canonical = json.dumps(want, sort_keys=True, separators=(",", ":"), default=str)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:STAMP_LENGTH]
    annotations = {**want["metadata"].get("annotations", {}), ANNOTATION_APPLIED: digest}
    return {**want, "metadata": {**want["metadata"], "annotations": annotations}}


def compare(want: Object, live: Object) -> Comparison:
    """`want` is stamped. A difference is drift when the live object carries the same stamp: it was as wanted before."""
    found = list(differences(want, live))
    additions = foreign_additions(want, live)
    changes = [f"{dotted(path, live)} added" for path in additions]
    if _stamp_of(live) == _stamp_of(want):
        changes = [*map(str, found), *changes]
    child = f"{want['kind']} {want['metadata']['name']}"
    who = next(iter(additions.values()), None) or _suspect(live)
    drift = Drift(Reason.CHILD_EDITED, child, who, tuple(changes)) if changes else None
    return Comparison(bool(found), tuple(additions), drift)


def count_drift(live: Object, want: int) -> Drift:
    """Of a Deployment of which only the count can be compared."""
    change = Difference("spec.replicas", live["spec"].get("replicas"), want)
    return Drift(Reason.CHILD_EDITED, f"Deployment {live['metadata']['name']}", _suspect(live), (str(change),))


def _stamp_of(body: Object) -> str | None:
    stamped: str | None = (body["metadata"].get("annotations") or {}).get(ANNOTATION_APPLIED)
    return stamped


def _suspect(live: Object) -> str:
    """Who last wrote where nobody else should; a removal leaves no owner behind, then nobody can be named."""
    writers = foreign_managers(live)
    inside = [who for who, fields in writers if any(f"f:{root}" in fields for root in OWNED_ROOTS)]
    others = [who for who, _ in writers if not who.startswith("kube-controller-manager")]
    return next(iter([*inside, *others]), "somebody")
