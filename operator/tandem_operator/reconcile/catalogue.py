"""The hardware classes that come with the chart, kept in the cluster: made, updated, removed; what people wrote stays.

Not objects of the Helm release: at the first install Helm knows no HardwareClass yet, since the definition comes with
the same release; as hooks they would be deleted and made anew by every upgrade, with what people changed in them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import yaml
from tandem_runtime.contracts.names import LABEL_MANAGED_BY, MANAGED_BY

from tandem_operator.api import names
from tandem_operator.api.hardware_class import KIND
from tandem_operator.reconcile.errors import ApiError
from tandem_operator.reconcile.world import Object

ANNOTATION_INSTALLED_BY: Final = "tandem.dev/installed-by"
"""Which release of the chart brought a class, as namespace/name."""

ATTEMPTS: Final = 4
"""Of an apply that leaves out what others have: each answer names all such fields, more than one round is a race."""

log = logging.getLogger(__name__)


class Store(Protocol):
    """What the installer needs of the client. Methods raise ApiError."""

    async def offer(self, body: Object) -> None:
        """Server-side apply without force."""

    async def delete(self, kind: str, namespace: str | None, name: str, uid: str) -> None: ...


@dataclass(frozen=True)
class Catalogue:
    """What one release of the chart wants there to be."""

    installed_by: str
    """namespace/name of the release: it removes only what it has installed itself."""
    classes: Mapping[str, Object]


def read_catalogue(path: str) -> Catalogue:
    """Of the file that the chart mounts. Raises ValueError or OSError."""
    listed = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(listed, dict) or "items" not in listed:
        raise ValueError(f"{path} holds no list of hardware classes (installedBy: ..., items: [...])")
    installed_by = str(listed.get("installedBy", ""))
    classes = {item["metadata"]["name"]: _marked(item, installed_by) for item in listed["items"] or []}
    return Catalogue(installed_by, classes)


def _marked(item: Object, installed_by: str) -> Object:
    metadata = item["metadata"]
    marks = {
        "labels": {**metadata.get("labels", {}), LABEL_MANAGED_BY: MANAGED_BY},
        "annotations": {**metadata.get("annotations", {}), ANNOTATION_INSTALLED_BY: installed_by},
    }
    return {**item, "apiVersion": names.API_VERSION, "kind": KIND, "metadata": {**metadata, **marks}}


def is_ours(live: Object) -> bool:
    """Whether the class came with the chart. Who removes the label takes the class over."""
    return bool((live["metadata"].get("labels") or {}).get(LABEL_MANAGED_BY) == MANAGED_BY)


async def install(store: Store, catalogue: Catalogue, live: Mapping[str, Object]) -> None:
    """Makes `live`, all classes by name, as the catalogue says, but for what is people's: classes, or fields of ours.

    Raises ApiError of the first class that fails, after all others were tried.
    """
    failures: list[ApiError] = []
    for name, body in catalogue.classes.items():
        if name in live and not is_ours(live[name]):
            log.info("hardware class %s is not ours: it has no label %s=%s", name, LABEL_MANAGED_BY, MANAGED_BY)
            continue
        try:
            await _offer(store, body)
        except ApiError as error:
            log.warning("hardware class %s is not installed: %s", name, error)
            failures.append(error)
    for name, body in live.items():
        by = (body["metadata"].get("annotations") or {}).get(ANNOTATION_INSTALLED_BY)
        if is_ours(body) and by == catalogue.installed_by and name not in catalogue.classes:
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
