"""What was repaired last, deployment by deployment: told once, and shown as a condition for a while."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from tandem_operator.api import conditions as c
from tandem_operator.api.conditions import Reason
from tandem_operator.reconcile.drift import Drift
from tandem_operator.reconcile.report import Statement, condition_of, parse_timestamp
from tandem_operator.reconcile.world import Object

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Repair:
    """Of one look, at the deployment `uid`: a namesake made later has nothing to do with it."""

    uid: str
    when: datetime
    drifts: list[Drift]


class Repairs(Generic[K]):
    """Holds a key no longer than its deployment lives, or than its repair is shown."""

    def __init__(self, visible_seconds: float) -> None:
        self._visible_seconds = visible_seconds
        self._last: dict[K, Repair] = {}

    def forget(self, key: K) -> None:
        self._last.pop(key, None)

    def news(self, key: K, body: Object, drifts: list[Drift]) -> list[Drift]:
        """Those that are not shown already: who repeats an edit every second must not flood the Events."""
        last = self._last.get(key)
        told = last.drifts if last and last.uid == body["metadata"]["uid"] else []
        return [drift for drift in drifts if drift not in told]

    def statement(self, key: K, body: Object, drifts: list[Drift], now: datetime) -> tuple[Statement, float | None]:
        """The condition, and seconds until it may be withdrawn."""
        uid = body["metadata"]["uid"]
        if drifts:
            self._last[key] = Repair(uid, now, drifts)
        if repair := self._last.get(key):
            left = self._visible_seconds - (now - repair.when).total_seconds()
            if left > 0 and repair.uid == uid:
                first, *others = repair.drifts
                more = f" ({len(others)} more children: see Events)" if others else ""
                message = first.sentence(body["metadata"]["name"]) + more
                return Statement(c.REPLICAS_OVERRIDDEN, True, first.reason, message), left
            self.forget(key)
        old = condition_of(body, c.REPLICAS_OVERRIDDEN)
        if old and old["status"] == "True":
            # Repaired by another instance of the operator: its condition is all that is left of it.
            end = parse_timestamp(old["lastTransitionTime"]) + timedelta(seconds=self._visible_seconds)
            if now < end:
                left = (end - now).total_seconds()
                return Statement(c.REPLICAS_OVERRIDDEN, True, old["reason"], old["message"]), left
        return Statement(c.REPLICAS_OVERRIDDEN, False, Reason.NOT_OVERRIDDEN, "nobody else changed the children"), None
