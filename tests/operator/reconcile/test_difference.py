"""What counts as a difference, who caused it, and how additions are removed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_operator.config import RenderSettings
from tandem_operator.reconcile.difference import differences, foreign_additions, removal_patch
from tandem_operator.reconcile.drift import compare, stamp
from tandem_operator.render.objects import render

from tests.operator.builders import deployment

WANT = stamp(render(deployment(), "0123abcd", "image:1", RenderSettings())[-1])


def live(**metadata: Any) -> dict[str, Any]:
    made = copy.deepcopy(WANT)
    made["metadata"] |= {"resourceVersion": "7", **metadata}
    return made


def managed(manager: str, fields: dict[str, Any], time: str = "2030-01-01T00:00:00Z", sub: str = "") -> dict[str, Any]:
    return {"manager": manager, "operation": "Update", "time": time, "subresource": sub, "fieldsV1": fields}


@pytest.mark.parametrize(
    ("want", "got"),
    [
        ({"a": 1}, {"a": 1, "defaulted": True}),
        ({"limits": {"cpu": "1000m"}}, {"limits": {"cpu": "1"}}),
        ({"requests": {"memory": 1024}}, {"requests": {"memory": "1Ki"}}),
        ({"env": [{"name": "A", "value": ""}]}, {"env": [{"name": "A"}]}),
        ({"env": [{"name": "B"}, {"name": "A"}]}, {"env": [{"name": "A"}, {"name": "X"}, {"name": "B"}]}),
        ({"emptyDir": {}}, {"emptyDir": {}}),
        ({"a": []}, {}),
        ({"a": None, "b": False}, {}),
    ],
)
def test_defaults_and_rewritten_quantities_are_no_difference(want: Any, got: Any) -> None:
    assert list(differences(want, got)) == []


@pytest.mark.parametrize(
    ("want", "got", "path"),
    [
        ({"replicas": 0}, {}, "replicas"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b"),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "2"}]}, "env[A].value"),
        ({"env": [{"name": "A"}]}, {"env": []}, "env[A]"),
        ({"args": ["a", "b"]}, {"args": ["a"]}, "args"),
        ({"args": ["a", "b"]}, {"args": ["a", "c"]}, "args[1]"),
        ({"selector": {"a": "b"}}, {"selector": {"a": "b", "c": "d"}}, "selector"),
        ({"emptyDir": {}}, {"emptyDir": None}, "emptyDir"),
    ],
)
def test_a_difference_names_its_path(want: Any, got: Any, path: str) -> None:
    assert [found.path for found in differences(want, got)] == [path]


@given(st.sampled_from(["spec", "metadata"]), st.data())
def test_an_object_never_differs_from_itself_plus_defaults(part: str, data: st.DataObject) -> None:
    more = data.draw(st.dictionaries(st.text("xyz", min_size=4), st.integers()))
    made = live()
    made[part] = {**more, **made[part]}
    assert list(differences(WANT, made)) == []


def test_a_spec_change_is_no_drift_and_a_foreign_edit_is() -> None:
    changed = live()
    changed["spec"]["replicas"] = 5
    assert compare(WANT, changed).drift is not None
    changed["metadata"]["annotations"]["tandem.dev/applied"] = "of an older spec"
    found = compare(WANT, changed)
    assert found.differs
    assert found.drift is None


def test_the_latest_foreign_writer_of_the_spec_is_named() -> None:
    changed = live(
        managedFields=[
            managed("tandem", {"f:spec": {}}),
            managed("old-tool", {"f:spec": {}}, "2029-01-01T00:00:00Z"),
            managed("kubectl", {"f:spec": {"f:replicas": {}}}, sub="scale"),
            managed("kube-controller-manager", {"f:metadata": {}}, "2031-01-01T00:00:00Z"),
            managed("kube-controller-manager", {"f:status": {}}, "2031-01-01T00:00:00Z", "status"),
        ]
    )
    changed["spec"]["replicas"] = 5
    drift = compare(WANT, changed).drift
    assert drift is not None
    assert drift.who == "kubectl (scale)"


CONTAINER = 'k:{"name":"runtime"}'


def test_what_others_add_is_found_by_owner_and_removed_from_the_back() -> None:
    made = live()
    pod = made["spec"]["template"]["spec"]
    pod["containers"][0]["env"] = [{"name": "X"}, *pod["containers"][0]["env"], {"name": "Y"}]
    pod["hostNetwork"] = True
    added = {'k:{"name":"X"}': {".": {}, "f:name": {}}, 'k:{"name":"Y"}': {".": {}, "f:name": {}}}
    fields = {
        "f:spec": {"f:template": {"f:spec": {"f:hostNetwork": {}, "f:containers": {CONTAINER: {"f:env": added}}}}}
    }
    made["metadata"]["managedFields"] = [managed("intruder", fields)]
    found = foreign_additions(WANT, made)
    assert set(found.values()) == {"intruder"}
    last = len(pod["containers"][0]["env"]) - 1
    test, *removals = removal_patch(list(found), "7")
    assert test == {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
    paths = [operation["path"] for operation in removals]
    env = "/spec/template/spec/containers/0/env"
    assert paths.index(f"{env}/{last}") < paths.index(f"{env}/0")
    assert "/spec/template/spec/hostNetwork" in paths
    drift = compare(WANT, made).drift
    assert drift is not None
    assert "env[X] added" in drift.sentence("chat") or "env[Y] added" in drift.sentence("chat")


def test_metadata_and_a_rollout_restart_are_left_alone() -> None:
    made = live()
    made["metadata"]["annotations"]["argocd.argoproj.io/tracking-id"] = "x"
    made["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}
    restarted = {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}
    made["metadata"]["managedFields"] = [
        managed("argocd", {"f:metadata": {"f:annotations": {"f:argocd.argoproj.io/tracking-id": {}}}}),
        managed("kubectl-rollout", {"f:spec": {"f:template": {"f:metadata": restarted}}}),
    ]
    found = compare(WANT, made)
    assert (found.differs, found.removals, found.drift) == (False, (), None)


def test_a_pointer_escapes_slashes() -> None:
    _, removal = removal_patch([("data", "a/b~c")], "1")
    assert removal["path"] == "/data/a~1b~0c"


def test_the_stamp_is_a_function_of_the_content_alone() -> None:
    again = stamp(json.loads(json.dumps(render(deployment(), "0123abcd", "image:1", RenderSettings())[-1])))
    assert again == WANT
