"""An API server in memory, for contract tests of the loop: stores dicts, plays controllers when told to.

It is a fake: its server-side apply replaces spec and data, real ownership of fields is shown by the e2e cases.
"""

from __future__ import annotations

import copy
from typing import Any

from tandem_operator.api import names
from tandem_operator.reconcile.errors import ApiError
from tandem_operator.reconcile.world import Notice, Object

Key = tuple[str, str, str]


class FakeCluster:
    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.writes: list[str] = []
        self.notices: list[Notice] = []
        self.failures: dict[str, ApiError] = {}
        """By operation, for example "apply Deployment"."""
        self._version = 0

    def add(self, body: Object) -> Object:
        """What a user creates."""
        self._store(copy.deepcopy(body))
        return body

    def edit(self, kind: str, name: str, manager: str, fields: dict[str, Any], **changes: Any) -> None:
        """A foreign write: `changes` replace parts of spec, `fields` is what managedFields says about it."""
        live = self.find_one(kind, name)
        live["spec"] = {**live["spec"], **changes}
        entry = {"manager": manager, "operation": "Update", "time": "2030-01-01T00:00:00Z", "fieldsV1": fields}
        live["metadata"].setdefault("managedFields", []).append(entry)
        self._store(live)

    def find_one(self, kind: str, name: str) -> Object:
        return next(o for (k, _, n), o in self.objects.items() if (k, n) == (kind, name))

    def names(self, kind: str) -> list[str]:
        return sorted(name for (k, _, name) in self.objects if k == kind)

    def make_ready(self, *prefixes: str) -> None:
        """Plays the Deployment controller and the kubelets: all pods of these Deployments are ready."""
        for (kind, _, name), live in self.objects.items():
            if kind == "Deployment" and name.startswith(prefixes):
                count = live["spec"]["replicas"]
                live["status"] = {
                    "observedGeneration": live["metadata"]["generation"],
                    **dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count),
                }

    def _store(self, live: Object) -> None:
        metadata = live["metadata"]
        key = (live["kind"], metadata["namespace"], metadata["name"])
        old = self.objects.get(key)
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", f"uid-{self._version}")
        if old is None:
            metadata.setdefault("generation", 1)
        elif old.get("spec") != live.get("spec"):
            metadata["generation"] = old["metadata"]["generation"] + 1
        self.objects[key] = copy.deepcopy(live)

    def _fail(self, what: str) -> None:
        for prefix, error in self.failures.items():
            if what.startswith(prefix):
                raise error

    def _write(self, what: str) -> None:
        self._fail(what)
        self.writes.append(what)

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def find(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Object]:
        if error := self.failures.get(f"find {kind}"):
            raise error
        return [
            copy.deepcopy(live)
            for (k, ns, _), live in self.objects.items()
            if (k, ns) == (kind, namespace) and labels.items() <= live["metadata"].get("labels", {}).items()
        ]

    async def apply(self, body: Object) -> Object:
        metadata = body["metadata"]
        self._write(f"apply {body['kind']} {metadata['name']}")
        old = self.objects.get((body["kind"], metadata["namespace"], metadata["name"]), {})
        kept = {key: value for key, value in old.get("metadata", {}).items() if key != "managedFields"}
        live = {**copy.deepcopy(old), **copy.deepcopy(body), "metadata": {**kept, **copy.deepcopy(metadata)}}
        self._store(live)
        return live

    async def apply_status(self, body: Object) -> None:
        metadata = body["metadata"]
        self._write(f"status {metadata['name']}")
        live = self.objects[(names.KIND, metadata["namespace"], metadata["name"])]
        live["status"] = copy.deepcopy(body["status"])

    async def patch_json(self, kind: str, namespace: str, name: str, operations: list[Object]) -> None:
        self._write(f"patch {kind} {name}")
        live = self.objects[(kind, namespace, name)]
        test, *changes = operations
        if test["value"] != live["metadata"]["resourceVersion"]:
            raise ApiError(422, "the test failed")
        for operation in changes:
            *path, last = operation["path"].lstrip("/").split("/")
            target: Any = live
            for step in path:
                target = target[int(step)] if isinstance(target, list) else target[step]
            key = int(last) if isinstance(target, list) else last
            if operation["op"] == "replace":
                target[key] = operation["value"]
            else:
                assert operation["op"] == "remove"
                del target[key]

    async def create(self, body: Object) -> bool:
        metadata = body["metadata"]
        what = f"create {body['kind']} {metadata['name']}"
        self._fail(what)  # quota and policy are asked before the API server sees that the object exists
        if (body["kind"], metadata["namespace"], metadata["name"]) in self.objects:
            return False
        self._write(what)
        self._store(copy.deepcopy(body))
        return True

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        self._write(f"delete {kind} {name}")
        assert self.objects[(kind, namespace, name)]["metadata"]["uid"] == uid
        del self.objects[(kind, namespace, name)]

    async def notify(self, regarding: Object, notice: Notice) -> None:
        self.notices.append(notice)
