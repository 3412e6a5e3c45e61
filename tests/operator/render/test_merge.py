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
        ({"metadata": {"labels": None}}, "give an object"),
        ({"spec": {"containers": [{"name": "runtime", "args": ["x"]}]}}, "changes args of container 'runtime'"),
        ({"spec": {"containers": [{"name": "runtime", "$patch": "delete"}]}}, "removes the container 'runtime'"),
        ({"spec": {"containers": None}}, "no list of containers with 'runtime'"),
        ({"spec": {"restartPolicy": "Never"}}, "must be Always"),
        ({"spec": {"containers": "runtime"}}, "is no list"),
        ({"spec": {"containers": ["runtime"]}}, "is no list of containers"),
        ({"spec": {"$patch": "replace", "containers": []}}, "give an object whose fields are merged"),
        ({"kind": "Pod"}, "unknown fields"),
        ({"spec": None}, "spec"),
        ({"spec": 5}, "spec"),
        ({"metadata": None}, "give an object"),
        ({"metadata": {"labels": ["a"]}}, "metadata.labels is ['a']; give an object"),
        ({"spec": {"tolerations": "all"}}, "give a list of objects"),
        ({"spec": {"terminationGracePeriodSeconds": "2m"}}, "whole seconds"),
        ({"spec": {"containers": [{"image": "no-name"}]}}, "removes the container"),
    ],
)
def test_an_override_that_breaks_the_deployment_is_refused_in_words(template: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidTemplate, match=r"^spec\.decode\.template") as caught:
        decode_template(**template)
    assert says in str(caught.value)


def test_tolerations_are_added_to_those_that_replace_pods_of_lost_nodes() -> None:
    def keys(*tolerations: dict[str, Any]) -> list[str | None]:
        return [t.get("key") for t in decode_template(spec={"tolerations": list(tolerations)})["spec"]["tolerations"]]

    lost = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
    assert keys() == lost
    assert keys({"key": "nvidia.com/gpu", "operator": "Exists"}) == ["nvidia.com/gpu", *lost]
    assert keys({"key": lost[1], "tolerationSeconds": 5}) == [lost[1], lost[0]]
    assert keys({"operator": "Exists"}) == [None], "who tolerates everything tolerates lost nodes, too"
    assert "tolerations" not in decode_template(spec={"tolerations": None})["spec"]


fields = st.sampled_from(
    ["metadata", "spec", "labels", "containers", "name", "runtime", "env", "volumes", "tolerations", "restartPolicy",
     "terminationGracePeriodSeconds", "$patch", "key", "args", "ports"]
)  # fmt: skip
overrides = st.recursive(
    st.none() | st.integers() | fields,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec"]), overrides, max_size=2))
def test_whatever_the_override_is_it_renders_or_is_refused_in_words(template: dict[str, Any]) -> None:
    try:
        rendered = decode_template(**template)
    except InvalidTemplate as error:
        refusal = str(error)
    else:
        assert rendered["metadata"]["labels"]["tandem.dev/role"] == "decode"
        assert "runtime" in [container.get("name") for container in rendered["spec"]["containers"]]
        return
    assert refusal.startswith("spec.decode.template")
