"""Pure: how a live object differs from the wanted one, and what others added to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tandem_operator.api.names import FIELD_MANAGER
from tandem_operator.api.quantity import same_quantity
from tandem_operator.render.merge import merge_key

QUANTITY_FIELDS: Final = frozenset({"limits", "requests"})
OWNED_ROOTS: Final = ("spec", "data")
"""Where nobody else has business; metadata is shared with tools that label and annotate."""

ATOMIC_MAPS: Final = frozenset({"selector", "matchLabels", "nodeSelector"})
"""The API server treats them as one value: one key more is another value."""

TOLERATED: Final = frozenset({"kubectl.kubernetes.io/restartedAt"})
"""`kubectl rollout restart` on a child is a fair request: it stays."""

_ABSENT: Final = object()


@dataclass(frozen=True)
class Difference:
    """One path at which the live object is not as wanted."""

    path: str
    live: Any
    want: Any

    def __str__(self) -> str:
        return f"{self.path} {_short(self.live)} -> {_short(self.want)}"


def differences(want: Any, live: Any, path: str = "", field: str = "") -> Iterator[Difference]:
    """Paths of `want` that `live` lacks or has otherwise. What only `live` has (defaults) does not count."""
    if isinstance(want, Mapping):
        if not isinstance(live, Mapping):
            if want or live is not _ABSENT:
                yield Difference(path, live, want)
            return
        if field in ATOMIC_MAPS and set(live) - set(want):
            yield Difference(path, dict(live), dict(want))
            return
        for key, value in want.items():
            yield from differences(value, live.get(key, _ABSENT), f"{path}.{key}" if path else key, _field(field, key))
    elif isinstance(want, list):
        yield from _list_differences(want, live, path, field)
    elif live is _ABSENT:
        if not (want is None or want is False or want == ""):
            yield Difference(path, None, want)
    elif want != live and not (field in QUANTITY_FIELDS and same_quantity(want, live)):
        yield Difference(path, live, want)


def _field(parent: str, key: str) -> str:
    return parent if parent in QUANTITY_FIELDS else key


def _list_differences(want: list[Any], live: Any, path: str, field: str) -> Iterator[Difference]:
    if not isinstance(live, list):
        if want:
            yield Difference(path, None if live is _ABSENT else live, want)
        return
    key = merge_key(field, want) if want else None
    if key is None:
        if len(want) != len(live):
            yield Difference(path, live, want)
            return
        for index, (one, other) in enumerate(zip(want, live, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
        return
    by_key = {item.get(key): item for item in live if isinstance(item, Mapping)}
    for item in want:
        yield from differences(item, by_key.get(item[key], _ABSENT), f"{path}[{item[key]}]")


def foreign_managers(live: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(who, fields) of everybody but us and those who only report status; the latest first."""
    entries = [
        entry
        for entry in live.get("metadata", {}).get("managedFields") or []
        if entry.get("manager") != FIELD_MANAGER and entry.get("subresource") != "status"
    ]
    entries.sort(key=lambda entry: str(entry.get("time", "")), reverse=True)
    return [(_who(entry), entry.get("fieldsV1") or {}) for entry in entries]


def _who(entry: Mapping[str, Any]) -> str:
    manager = str(entry.get("manager", "unknown"))
    return f"{manager} ({entry['subresource']})" if entry.get("subresource") else manager


def foreign_additions(want: Mapping[str, Any], live: Mapping[str, Any]) -> dict[tuple[str | int, ...], str]:
    """Paths under spec or data that others own and that are not wanted, each with its owner."""
    found: dict[tuple[str | int, ...], str] = {}
    for who, fields in foreign_managers(live):
        for root in OWNED_ROOTS:
            if f"f:{root}" in fields and root in want and root in live:
                for path in _unwanted(fields[f"f:{root}"], want[root], live[root], (root,)):
                    found.setdefault(path, who)
    return found


def _unwanted(
    fields: Mapping[str, Any], want: Any, live: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[str | int, ...]]:
    for key, inner in fields.items():
        kind, _, name = key.partition(":")
        if kind == "f" and isinstance(live, Mapping) and name in live and name not in TOLERATED:
            wanted = want.get(name, _ABSENT) if isinstance(want, Mapping) else _ABSENT
            step: str | int = name
            actual = live[name]
        elif kind == "k" and isinstance(live, list):
            keys = json.loads(name)
            index = next((i for i, item in enumerate(live) if _matches(item, keys)), None)
            if index is None:
                continue
            wanted = (
                next((item for item in want if _matches(item, keys)), _ABSENT) if isinstance(want, list) else _ABSENT
            )
            step, actual = index, live[index]
        else:
            continue
        if inner and set(inner) != {"."} and (wanted is not _ABSENT or _holds_tolerated(inner)):
            yield from _unwanted(inner, wanted, actual, (*path, step))
        elif wanted is _ABSENT:
            yield (*path, step)


def _holds_tolerated(fields: Mapping[str, Any]) -> bool:
    return any(key.partition(":")[2] in TOLERATED for key in fields)


def _matches(item: Any, keys: Mapping[str, Any]) -> bool:
    return isinstance(item, Mapping) and all(item.get(key) == value for key, value in keys.items())


def removal_patch(paths: list[tuple[str | int, ...]], resource_version: str) -> list[dict[str, Any]]:
    """RFC 6902 operations that remove `paths`; from the back, so that indexes stay right."""
    ordered = sorted(paths, key=lambda path: [(isinstance(step, int), str(step), step) for step in path])
    by_index = sorted(ordered, key=lambda path: [-step if isinstance(step, int) else 0 for step in path])
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": resource_version}
    return [test, *({"op": "remove", "path": _pointer(path)} for path in by_index)]


def _pointer(path: tuple[str | int, ...]) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def dotted(path: tuple[str | int, ...], live: Any) -> str:
    """`path` for people: items of lists by their names in `live`."""
    text = ""
    for step in path:
        live = live[step]
        name = live.get("name", step) if isinstance(step, int) and isinstance(live, Mapping) else step
        text += f"[{name}]" if isinstance(step, int) else f".{step}"
    return text.lstrip(".")


def _short(value: Any) -> str:
    text = "absent" if value is None or value is _ABSENT else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
