"""The webhook as the chart installs it: it can stop nobody else's work, and the operator gets no right beyond it."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from tandem_operator.__main__ import parse_settings

from tests.chart.test_chart import SCHEMA, VALUES, of_kind, template

KIND = "ValidatingWebhookConfiguration"
NAME = "tandem-admission"


def webhook(*arguments: str) -> dict[str, Any]:
    (configuration,) = of_kind(template(*arguments), KIND)
    (one,) = configuration["webhooks"]
    assert isinstance(one, dict)
    return one


def role(objects: list[dict[str, Any]], kind: str, name: str) -> list[dict[str, Any]]:
    (found,) = (body for body in of_kind(objects, kind) if body["metadata"]["name"] == name)
    rules: list[dict[str, Any]] = found["rules"]
    return rules


def test_its_outage_blocks_nothing_and_it_is_asked_of_our_kind_alone() -> None:
    one = webhook()
    assert one["failurePolicy"] == "Ignore"
    assert one["timeoutSeconds"] <= 5
    assert one["sideEffects"] == "None", "a dry run is answered too"
    assert one["admissionReviewVersions"] == ["v1"]
    (rule,) = one["rules"]
    assert rule["apiGroups"] == ["tandem.dev"]
    assert rule["resources"] == ["inferencedeployments"], "neither status nor scale"
    assert rule["operations"] == ["CREATE", "UPDATE"]
    assert "namespaceSelector" not in one
    assert "caBundle" not in one["clientConfig"]


def test_in_namespaces_that_are_not_watched_it_is_not_asked() -> None:
    (expression,) = webhook("--set", "watchNamespaces={a,b}")["namespaceSelector"]["matchExpressions"]
    assert expression == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}


def test_the_service_leads_to_the_operators_port() -> None:
    objects = template()
    target = webhook()["clientConfig"]["service"]
    (service,) = of_kind(objects, "Service")
    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == (target["name"], target["namespace"])
    (port,) = service["spec"]["ports"]
    assert port["port"] == target["port"]
    (deployment,) = of_kind(objects, "Deployment")
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    settings = parse_settings(container["args"]).admission
    assert settings.name == service["metadata"]["name"]
    assert {"name": port["targetPort"], "containerPort": settings.port, "protocol": "TCP"} in container["ports"]


def test_the_operator_may_touch_its_own_secret_and_configuration_only() -> None:
    objects = template()
    (configuration,) = of_kind(objects, KIND)
    (secret,) = of_kind(objects, "Secret")
    assert secret["metadata"]["name"] == NAME
    assert "data" not in secret, "an upgrade would empty it"
    (rule,) = role(objects, "Role", NAME)
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["secrets"], [NAME], ["get", "patch"])
    (rule,) = role(objects, "ClusterRole", f"tandem-system-{NAME}")
    assert rule["resourceNames"] == [configuration["metadata"]["name"]]
    assert (rule["resources"], rule["verbs"]) == (["validatingwebhookconfigurations"], ["get", "patch"])


def test_the_operator_looks_for_the_names_that_the_chart_gave() -> None:
    objects = template(release="other")
    (configuration,) = of_kind(objects, KIND)
    (deployment,) = of_kind(objects, "Deployment")
    settings = parse_settings(deployment["spec"]["template"]["spec"]["containers"][0]["args"]).admission
    assert settings.configuration("tandem-system") == configuration["metadata"]["name"]
    assert {body["metadata"]["name"] for body in of_kind(objects, "Secret")} == {settings.name}


def test_it_can_be_left_out() -> None:
    objects = template("--set", "admission.enabled=false")
    assert of_kind(objects, KIND) == of_kind(objects, "Service") == of_kind(objects, "Secret") == []
    assert not any("admission" in body["metadata"]["name"] for body in objects)
    (deployment,) = of_kind(objects, "Deployment")
    assert not parse_settings(deployment["spec"]["template"]["spec"]["containers"][0]["args"]).admission.name


@pytest.mark.parametrize("wrong", [{"timeoutSeconds": 30}, {"enabled": "yes"}, {"failurePolicy": "Fail"}])
def test_a_wrong_value_of_it_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALUES, "admission": {**VALUES["admission"], **wrong}}, SCHEMA)
