"""Which nodes pods may use in spite of taints: what the user's template tolerates. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tandem_operator.api.spec import Pool
from tandem_operator.placement.capacity import NodeGroup, Taint


def tolerated_by(pools: list[Pool]) -> Callable[[NodeGroup], bool]:
    """Nodes that the pods of both pools tolerate. Taints of the device's own key are left out of a group."""

    def tolerates(pool: Pool, taint: Taint) -> bool:
        spec = pool.template.get("spec")
        given = spec.get("tolerations") if isinstance(spec, dict) else None
        tolerations = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
        return any(_matches(item, taint) for item in tolerations)

    return lambda group: all(tolerates(pool, taint) for pool in pools for taint in group.taints)


def _matches(toleration: dict[str, Any], taint: Taint) -> bool:
    """The API server's own rule."""
    if toleration.get("effect") not in (None, "", taint.effect):
        return False
    key = toleration.get("key") or ""
    if toleration.get("operator") == "Exists":
        return key in ("", taint.key)
    return bool(key == taint.key and (toleration.get("value") or "") == taint.value)
