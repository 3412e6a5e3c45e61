"""The hardware classes that come with the chart, kept in the cluster: made, updated, removed; what people wrote stays.

Not objects of the Helm release: at the first install Helm knows no HardwareClass yet, since the definition comes with
the same release; as hooks they would be deleted and made anew by every upgrade, with what people changed in them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import yaml
from tandem_runtime.contracts.names import LABEL_MANAGED_BY, MANAGED_BY

from tandem_operator.api import names
from tandem_operator.api.hardware_class import KIND
from tandem_operator.reconcile.errors import ApiError
from tandem_operator.reconcile.world import Object

ATTEMPTS: Final = 4
"""Of an apply that leaves out what others have: each answer names all such fields, more than one round is a race."""

log = logging.getLogger(__name__)


class Store(Protocol):
    """What the installer needs of the client. Methods raise ApiError."""

    async def offer(self, body: Object) -> None:
        """Server-side apply without force."""

    async def delete(self, kind: str, namespace: str | None, name: str, uid: str) -> None: ...


def read_classes(path: str) -> dict[str, Object]:
    """HardwareClass objects by name, of the file that the chart mounts. Raises ValueError or OSError."""
    listed = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    items = listed.get("items") if isinstance(listed, dict) else None
    if not isinstance(items, list):
        raise ValueError(f"{path} holds no list of hardware classes (items: [...])")
    return {item["metadata"]["name"]: _labelled(item) for item in items}


def _labelled(item: Object) -> Object:
    metadata = item["metadata"]
    labels = {**metadata.get("labels", {}), LABEL_MANAGED_BY: MANAGED_BY}
    return {**item, "apiVersion": names.API_VERSION, "kind": KIND, "metadata": {**metadata, "labels": labels}}


def is_ours(live: Object) -> bool:
    """Whether the class came with the chart. Who removes the label takes the class over."""
    return bool((live["metadata"].get("labels") or {}).get(LABEL_MANAGED_BY) == MANAGED_BY)


async def install(store: Store, wanted: Mapping[str, Object], live: Mapping[str, Object]) -> None:
    """Makes `live` as wanted, except for what belongs to people: whole classes, or single fields of ours.

    Raises ApiError of the first class that fails, after all others were tried.
    """
    failures: list[ApiError] = []
    for name, body in wanted.items():
        if name in live and not is_ours(live[name]):
            log.info("hardware class %s is not ours: it has no label %s=%s", name, LABEL_MANAGED_BY, MANAGED_BY)
            continue
        try:
            await _offer(store, body)
        except ApiError as error:
            log.warning("hardware class %s is not installed: %s", name, error)
            failures.append(error)
    for name, body in live.items():
        if is_ours(body) and name not in wanted:
            await store.delete(KIND, None, name, body["metadata"]["uid"])
            log.info("hardware class %s is removed: the chart's values leave it out", name)
    if failures:
        raise failures[0]


async def _offer(store: Store, body: Object) -> None:
    """Fields that a person has edited stay as they are: they are left out of what is applied."""
    rest = copy.deepcopy(body)
    for attempt in range(ATTEMPTS):
        try:
            await store.offer(rest)
        except ApiError as error:
            removed = [path for path in error.conflicts if _remove(rest, path)]
            if not removed or attempt == ATTEMPTS - 1:
                raise
            log.info("hardware class %s: kept as edited: %s", body["metadata"]["name"], ", ".join(sorted(removed)))
        else:
            return


def _remove(body: Any, path: str) -> bool:
    """Takes the field at a path such as .spec.flops.bf16 out. Whether it was there. Keys may hold dots."""
    rest = path.lstrip(".")
    if not isinstance(body, dict):
        return False
    if rest in body:
        del body[rest]
        return True
    return any(_remove(value, rest[len(key) :]) for key, value in body.items() if rest.startswith(f"{key}."))
