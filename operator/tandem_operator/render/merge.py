"""Strategic merge of a pod template override: maps by key, lists of named things by name, null removes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "resourceClaims": ("name",),
    "claims": ("name",),
    "ports": ("containerPort", "port"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "topologySpreadConstraints": ("topologyKey",),
    "hostAliases": ("ip",),
    "ownerReferences": ("uid",),
}
"""The patch merge keys of the Kubernetes API types that occur here; all other lists are replaced as a whole."""


def merge(base: Any, override: Any, field: str = "") -> Any:
    """`override` merged into `base`; neither is changed. Raises ValueError when types do not match."""
    if isinstance(override, Mapping):
        if override.get("$patch") == "replace" or base is None:
            return {key: merge(None, value, key) for key, value in override.items() if _kept(key, value)}
        if not isinstance(base, Mapping):
            raise ValueError(f"{field}: an object cannot be merged into {base!r}")
        return _merge_maps(base, override)
    if isinstance(override, list):
        key = merge_key(field, override)
        if key is None:
            return [merge(None, item) if isinstance(item, Mapping) else item for item in override]
        if base is not None and not isinstance(base, list):
            raise ValueError(f"{field}: a list cannot be merged into {base!r}")
        return _merge_named(list(base or []), override, key, field)
    return override


def merge_key(field: str, items: list[Any]) -> str | None:
    """Name of the key by which items of the list `field` are told apart; None for lists that are atomic."""
    candidates = MERGE_KEYS.get(field, ())
    return next((k for k in candidates if all(isinstance(i, Mapping) and k in i for i in items)), None)


def _kept(key: str, value: Any) -> bool:
    return key != "$patch" and value is not None


def _merge_maps(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        if value is None:
            merged.pop(key, None)
        elif key != "$patch":
            merged[key] = merge(merged.get(key), value, key)
    return merged


def _merge_named(base: list[Any], override: list[Any], key: str, field: str) -> list[Any]:
    merged = list(base)
    for item in override:
        index = next((i for i, old in enumerate(merged) if old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if index is not None:
                del merged[index]
        elif index is None:
            merged.append(merge(None, item))
        elif field == "volumes":
            merged[index] = merge(None, item)  # a volume has one source: merging two would make it invalid
        elif field == "env":
            merged[index] = merge(None, item)  # value and valueFrom exclude each other
        else:
            merged[index] = merge(merged[index], item)
    return merged
