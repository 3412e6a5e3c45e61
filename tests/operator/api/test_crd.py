"""The CustomResourceDefinition: fresh, structural, documented, and strict about what it can be strict about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tandem_operator.api import names
from tandem_operator.api.conditions import POD_PROBLEMS, TYPES, Reason
from tandem_operator.api.crd import DEFINITIONS, HARDWARE_CLASS, crd_text, custom_resource_definition, main, targets

ROOT = Path(__file__).parents[3]
VERSION = custom_resource_definition()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
SCHEMAS = {
    one.kind: custom_resource_definition(one)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for one in DEFINITIONS
}
every_kind = pytest.mark.parametrize("kind", SCHEMAS)


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def test_the_written_files_are_fresh() -> None:
    for one in DEFINITIONS:
        for path in targets(ROOT, one):
            assert path.read_text() == crd_text(one), "run: python -m tandem_operator.api.crd --write"


def test_check_fails_on_a_stale_file_and_write_repairs_it(tmp_path: Path) -> None:
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert main(["--write", "--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0
    targets(tmp_path)[0].write_text("old")
    assert main(["--check", "--root", str(tmp_path)]) == 1


@every_kind
def test_the_schema_is_structural(kind: str) -> None:
    for path, node in nodes(SCHEMAS[kind]):
        assert "$ref" not in node, path
        assert "title" not in node, path
        assert node.get("default", "") is not None, path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not ("properties" in node and "additionalProperties" in node), path


@every_kind
def test_every_field_is_documented(kind: str) -> None:
    undocumented = [
        path
        for path, node in nodes(SCHEMAS[kind])
        if not path.endswith("[]") and path not in ("",) and "description" not in node
    ]
    assert undocumented == []


@every_kind
def test_texts_and_lists_are_bounded_so_that_rules_stay_cheap(kind: str) -> None:
    for path, node in nodes(SCHEMAS[kind]["properties"]["spec"]):
        if "x-kubernetes-validations" in node and node.get("type") == "string":
            assert "maxLength" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path


@every_kind
def test_every_rule_has_a_sentence(kind: str) -> None:
    for path, node in nodes(SCHEMAS[kind]):
        for rule in node.get("x-kubernetes-validations", []):
            assert len(rule["message"]) > 25, path


def test_a_spec_with_only_a_model_is_enough_and_gets_its_defaults() -> None:
    spec = SCHEMA["properties"]["spec"]["properties"]
    assert [name for name in spec if "default" not in spec[name]] == []
    assert spec["prefill"]["properties"]["replicas"]["default"] == 1
    assert spec["router"]["properties"]["waitForPods"]["default"] == "120s"


@pytest.mark.parametrize("sample", sorted((ROOT / "e2e/samples").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_samples_follow_the_schema(sample: Path) -> None:
    plain = yaml.safe_load(yaml.safe_dump(SCHEMA))
    for body in yaml.safe_load_all(sample.read_text()):
        jsonschema.validate(body, plain)


def test_kubectl_get_shows_whether_it_is_fine_and_why_not() -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert [c["name"] for c in columns if not c.get("priority")] == ["Ready", "Prefill", "Decode", "Reason", "Age"]
    assert {"Model", "Message"} <= {c["name"] for c in columns if c.get("priority")}


def test_conditions_are_a_map_list_by_type() -> None:
    conditions = SCHEMA["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_reasons_and_types_are_pascal_case_and_unique() -> None:
    reasons = [value for key, value in vars(Reason).items() if key.isupper()]
    assert len(reasons) == len(set(reasons))
    assert all(text[0].isupper() and text.isalnum() for text in [*reasons, *TYPES])
    assert set(POD_PROBLEMS) <= set(reasons)


def test_helm_keeps_the_definition_when_the_chart_goes() -> None:
    assert custom_resource_definition()["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert custom_resource_definition()["spec"]["names"]["shortNames"] == ["infd"]
    assert custom_resource_definition()["metadata"]["name"] == f"{names.PLURAL}.{names.GROUP}"


def test_kubectl_get_hwc_shows_what_the_cluster_has_of_a_class() -> None:
    version = custom_resource_definition(HARDWARE_CLASS)["spec"]["versions"][0]
    columns = [c["name"] for c in version["additionalPrinterColumns"] if not c.get("priority")]
    assert columns == ["Nodes", "Devices", "Free", "Stranded", "Memory", "Price", "Age"]
    assert custom_resource_definition(HARDWARE_CLASS)["spec"]["scope"] == "Cluster"
