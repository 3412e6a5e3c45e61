"""Strategic merge of template overrides, and which of them are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_operator.config import RenderSettings
from tandem_operator.render.merge import merge
from tandem_operator.render.objects import render
from tandem_operator.render.pods import InvalidTemplate

from tests.operator.builders import deployment

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=6,
)


def decode_template(**template: Any) -> dict[str, Any]:
    objects = render(deployment(decode={"template": template}), "0123abcd", "image:1", RenderSettings())
    return next(o["spec"]["template"] for o in objects if o["metadata"]["name"].startswith("chat-decode-"))


@pytest.mark.parametrize(
    ("base", "override", "want"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ({"a": 1}, {"a": None}, {}),
        ({"a": {"x": 1}}, {"a": {"$patch": "replace", "y": 2}}, {"a": {"y": 2}}),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]},
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}]},
        ),
        (
            {"env": [{"name": "A"}, {"name": "B"}]},
            {"env": [{"name": "A", "$patch": "delete"}]},
            {"env": [{"name": "B"}]},
        ),
        (
            {"env": [{"name": "A", "value": "1"}]},
            {"env": [{"name": "A", "valueFrom": {"x": 1}}]},
            {"env": [{"name": "A", "valueFrom": {"x": 1}}]},
        ),
        (
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
            {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
        ),
        (
            {"volumeMounts": [{"name": "a", "mountPath": "/a"}]},
            {"volumeMounts": [{"name": "b", "mountPath": "/b"}]},
            {"volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b"}]},
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        ({"args": ["a", "b"]}, {"args": ["c"]}, {"args": ["c"]}),
    ],
)
def test_merge_follows_the_rules_of_kubectl_patch(base: Any, override: Any, want: Any) -> None:
    assert merge(base, override) == want


@given(st.dictionaries(st.sampled_from("abcd"), json_values), st.dictionaries(st.sampled_from("abcd"), json_values))
def test_merging_the_same_override_twice_changes_nothing_more(base: Any, override: Any) -> None:
    try:
        once = merge(base, override)
    except ValueError:
        return
    assert merge(once, override) == once


@given(st.dictionaries(st.sampled_from("abcd"), json_values))
def test_an_empty_override_is_neutral(base: Any) -> None:
    assert merge(base, {}) == base


def test_an_override_reaches_labels_scheduling_env_and_volumes() -> None:
    template = decode_template(
        metadata={"labels": {"team": "red"}, "annotations": {"note": "x"}},
        spec={
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 7,
            "containers": [
                {"name": "runtime", "env": [{"name": "HF_TOKEN", "value": "x"}]},
                {"name": "side", "image": "s"},
            ],
            "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
        },
    )
    assert template["metadata"]["labels"]["team"] == "red"
    assert template["metadata"]["labels"]["tandem.dev/role"] == "decode"
    assert template["metadata"]["annotations"] == {"note": "x"}
    assert template["spec"]["nodeSelector"] == {"gpu": "h100"}
    assert template["spec"]["terminationGracePeriodSeconds"] == 7
    names = [e["name"] for e in template["spec"]["containers"][0]["env"]]
    assert {"POD_NAME", "POD_IP", "HF_TOKEN"} <= set(names)
    assert [c["name"] for c in template["spec"]["containers"]] == ["runtime", "side"]
    assert {"tmp", "token", "shm"} <= {v["name"] for v in template["spec"]["volumes"]}


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ({"metadata": {"labels": {"tandem.dev/role": "router"}}}, "which selectors rely on"),
        ({"metadata": {"labels": {"app.kubernetes.io/name": "mine"}}}, "choose other keys"),
        ({"metadata": {"labels": None}}, "removes labels"),
        ({"spec": {"containers": [{"name": "runtime", "args": ["x"]}]}}, "changes args of container 'runtime'"),
        ({"spec": {"containers": [{"name": "runtime", "$patch": "delete"}]}}, "removes the container 'runtime'"),
        ({"spec": {"containers": None}}, "removes the container"),
        ({"spec": {"restartPolicy": "Never"}}, "must be Always"),
        ({"spec": {"containers": "runtime"}}, "is no list"),
        ({"kind": "Pod"}, "unknown fields"),
        ({"spec": {"containers": [{"image": "no-name"}]}}, "removes the container"),
    ],
)
def test_an_override_that_breaks_the_deployment_is_refused_in_words(template: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidTemplate, match=r"^spec\.decode\.template") as caught:
        decode_template(**template)
    assert says in str(caught.value)
