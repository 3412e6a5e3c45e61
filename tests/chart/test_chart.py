"""The chart as files: rights, security, values and their schema. Rendered by a real helm."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tandem_operator.__main__ import parse_settings
from tandem_operator.api.crd import DEFINITIONS, custom_resource_definition

from e2e.cluster.build import HELM, build
from tests.operator.pod_security import violations

CHART = Path(__file__).parents[2] / "charts/tandem"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


@functools.cache
def find_helm() -> str:
    """The one on PATH, else the local cluster's, which is built once (some 80 s). Fails, never skips, without both."""
    return shutil.which("helm") or str(build(HELM, print))


def template(*arguments: str, release: str = "tandem") -> list[dict[str, Any]]:
    command = [find_helm(), "template", release, str(CHART), "--namespace", "tandem-system", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [body for body in objects if body["kind"] == kind]


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(body for body in of_kind(objects, kind) if body["metadata"]["name"] == name)


def granted(role: dict[str, Any]) -> set[tuple[str, str]]:
    return {(r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}


def test_the_default_values_follow_the_schema_and_every_value_has_one() -> None:
    jsonschema.validate(VALUES, SCHEMA)
    assert set(VALUES) == set(SCHEMA["properties"]) - {"global"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas": "two"},
        {"image": "a b"},
        {"imagePullPolicy": "Sometimes"},
        {"watchNamespaces": ["Up"]},
        {"imgae": "x"},
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALUES, **wrong}, SCHEMA)


def test_versions_are_those_of_the_distribution() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project
    assert chart["version"] == chart["appVersion"]


def test_the_chart_brings_the_definitions_unless_told_not_to() -> None:
    brought = {body["metadata"]["name"]: body for body in of_kind(template(), "CustomResourceDefinition")}
    wanted = [custom_resource_definition(one) for one in DEFINITIONS]
    assert brought == {body["metadata"]["name"]: body for body in wanted}
    assert of_kind(template("--set", "installCRD=false"), "CustomResourceDefinition") == []


def test_the_operator_pod_is_restricted_and_its_flags_are_known() -> None:
    images = ("--set", "image=localhost/o:1", "--set", "runtimeImage=localhost/r:1", "--set", "watchNamespaces={a,b}")
    (deployment,) = of_kind(template(*images), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert list(violations(pod)) == []
    (container,) = pod["containers"]
    assert container["image"] == "localhost/o:1"
    settings = parse_settings(container["args"])
    assert settings.render.default_runtime_image == "localhost/r:1"
    assert settings.namespaces == ("a", "b")
    assert settings.lease.name == "tandem-operator"
    selector = deployment["spec"]["selector"]["matchLabels"].items()
    assert selector <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_the_operator_can_read_no_secret_and_write_no_spec() -> None:
    rights = granted(named(template(), "ClusterRole", "tandem-system-tandem"))
    assert {verb for resource, verb in rights if resource == "secrets"} == {"create"}
    assert {verb for resource, verb in rights if resource == "inferencedeployments"} == {"get", "list", "watch"}
    assert {verb for resource, verb in rights if resource == "pods"} == {"list", "watch"}
    assert not any("*" in right for right in rights)
    assert not any(resource in ("customresourcedefinitions", "namespaces", "nodes") for resource, _ in rights)


def test_with_named_namespaces_there_is_no_right_outside_them_but_on_what_has_no_namespace() -> None:
    objects = template("--set", "watchNamespaces={a,b}")
    outside = {right for role in of_kind(objects, "ClusterRole") for right in granted(role)}
    assert {resource for resource, _ in outside} <= {
        "nodes", "hardwareclasses", "hardwareclasses/status", "validatingwebhookconfigurations",
    }  # fmt: skip
    everywhere = granted(named(template(), "ClusterRole", "tandem-system-tandem"))
    for namespace in ("a", "b"):
        roles = [role for role in of_kind(objects, "Role") if role["metadata"]["namespace"] == namespace]
        assert [granted(role) for role in roles] == [everywhere]
    assert granted(named(objects, "Role", "tandem-lease")) == {("leases", verb) for verb in ("get", "create", "update")}


def test_two_releases_in_one_namespace_do_not_wait_for_each_other() -> None:
    names: list[set[tuple[str, str]]] = []
    for release in ("one", "two"):
        objects = template("--set", f"watchNamespaces={{{release}}},installCRD=false", release=release)
        (deployment,) = of_kind(objects, "Deployment")
        lease = parse_settings(deployment["spec"]["template"]["spec"]["containers"][0]["args"]).lease.name
        names.append({("Lease", lease), *((o["kind"], o["metadata"]["name"]) for o in objects)})
    assert names[0] & names[1] == set()


def test_helm_refuses_a_value_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="'imgae' not allowed"):
        template("--set", "imgae=x")
