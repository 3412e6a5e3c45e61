"""Installing the bundled classes: people's classes and people's edits stay, what values leave out goes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tandem_operator.reconcile.catalogue import Catalogue, install, read_catalogue
from tandem_operator.reconcile.errors import ApiError

OURS = {"app.kubernetes.io/managed-by": "tandem"}


class FakeStore:
    """Server-side apply with owners by path: `taken` are fields that a person has written."""

    def __init__(self, taken: dict[str, set[str]] | None = None) -> None:
        self.taken = taken or {}
        self.applied: dict[str, dict[str, Any]] = {}
        self.deleted: list[tuple[str, str]] = []
        self.failure: dict[str, ApiError] = {}

    async def offer(self, body: dict[str, Any]) -> None:
        name = body["metadata"]["name"]
        if error := self.failure.get(name):
            raise error
        conflicts = tuple(sorted(path for path in self.taken.get(name, ()) if has(body, path)))
        if conflicts:
            raise ApiError(409, "Apply failed with conflicts", conflicts)
        self.applied[name] = copy.deepcopy(body)

    async def delete(self, kind: str, namespace: str | None, name: str, uid: str) -> None:
        self.deleted.append((name, uid))


def has(body: Any, path: str) -> bool:
    if path.startswith(".metadata.annotations."):
        return path.removeprefix(".metadata.annotations.") in body["metadata"]["annotations"]
    for step in path.strip(".").split("."):
        if not isinstance(body, dict) or step not in body:
            return False
        body = body[step]
    return True


def read(tmp_path: Path, *names: str) -> Catalogue:
    spec = {"memory": "80Gi", "pricePerHour": "2.69", "flops": {"bf16": "989T", "fp8": "1978T"}}
    items = [{"metadata": {"name": n, "annotations": {"about.tandem.dev/note": "x"}}, "spec": spec} for n in names]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"installedBy": "system/tandem", "items": items}))
    return read_catalogue(str(tmp_path / "c.yaml"))


def live(name: str, labels: dict[str, str] | None = None, by: str = "system/tandem") -> dict[str, Any]:
    annotations = {"tandem.dev/installed-by": by}
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "labels": OURS if labels is None else labels,
        "annotations": annotations,
    }
    return {"metadata": metadata, "spec": {}}


async def test_all_classes_are_made_marked_as_ours(tmp_path: Path) -> None:
    store = FakeStore()
    await install(store, read(tmp_path, "a", "b"), {})
    assert store.applied.keys() == {"a", "b"}
    metadata = store.applied["a"]["metadata"]
    assert metadata["labels"] == OURS
    assert metadata["annotations"]["tandem.dev/installed-by"] == "system/tandem"
    assert store.applied["a"]["kind"] == "HardwareClass"


async def test_a_field_that_a_person_edited_stays_as_they_wrote_it(tmp_path: Path) -> None:
    store = FakeStore({"a": {".spec.pricePerHour", ".spec.flops.fp8", ".metadata.annotations.about.tandem.dev/note"}})
    await install(store, read(tmp_path, "a"), {"a": live("a")})
    assert store.applied["a"]["spec"] == {"memory": "80Gi", "flops": {"bf16": "989T"}}
    assert "about.tandem.dev/note" not in store.applied["a"]["metadata"]["annotations"]


async def test_a_class_that_a_person_made_or_took_over_is_theirs(tmp_path: Path) -> None:
    store = FakeStore()
    await install(store, read(tmp_path, "a", "b"), {"a": live("a", labels={}), "mine": live("mine", labels={})})
    assert store.applied.keys() == {"b"}
    assert store.deleted == []


async def test_a_class_that_the_values_leave_out_is_removed_but_not_one_of_another_release(tmp_path: Path) -> None:
    store = FakeStore()
    await install(store, read(tmp_path, "a"), {"a": live("a"), "b": live("b"), "c": live("c", by="other/tandem")})
    assert store.deleted == [("b", "uid-b")]


async def test_one_that_fails_stops_no_other_and_the_failure_is_told(tmp_path: Path) -> None:
    store = FakeStore()
    store.failure["a"] = ApiError(500, "not now")
    with pytest.raises(ApiError, match="not now"):
        await install(store, read(tmp_path, "a", "b"), {})
    assert store.applied.keys() == {"b"}


async def test_a_conflict_about_a_field_that_is_not_ours_to_leave_out_is_an_error(tmp_path: Path) -> None:
    store = FakeStore()
    store.failure["a"] = ApiError(409, "conflict", (".spec.unknown",))
    with pytest.raises(ApiError, match="conflict"):
        await install(store, read(tmp_path, "a"), {})


@pytest.mark.parametrize("text", ["", "items", "a: b"])
def test_a_file_that_is_no_catalogue_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml holds no list of hardware classes"):
        read_catalogue(str(tmp_path / "c.yaml"))


def test_an_empty_catalogue_is_one(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("installedBy: a/b\nitems:\n")
    assert read_catalogue(str(tmp_path / "c.yaml")).classes == {}
