"""Hardware classes in the chart: the bundled ones reach the operator as values change them, with no right unused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tandem_operator.__main__ import parse_settings
from tandem_operator.api.crd import HARDWARE_CLASS, custom_resource_definition
from tandem_operator.api.hardware_class import HardwareClassSpec, parse_hardware_class
from tandem_operator.placement.catalogue import bundled
from tandem_operator.reconcile.catalogue import Catalogue, read_catalogue

from tests.chart.test_chart import SCHEMA, VALUES, granted, named, of_kind, template

DEFINITION = custom_resource_definition(HARDWARE_CLASS)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def catalogue(tmp_path: Path, values: dict[str, Any]) -> Catalogue:
    """What the operator reads when the chart is installed with these values."""
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    objects = template("--values", str(tmp_path / "values.yaml"))
    data = named(objects, "ConfigMap", "tandem-hardware-classes")["data"]
    (tmp_path / "classes.yaml").write_text(data["hardware-classes.yaml"])
    return read_catalogue(str(tmp_path / "classes.yaml"))


def test_all_bundled_classes_reach_the_operator_as_the_definition_wants_them(tmp_path: Path) -> None:
    found = catalogue(tmp_path, {})
    assert found.installed_by == "tandem-system/tandem"
    assert len(found.classes) == 36
    for name, body in found.classes.items():
        jsonschema.validate(body, DEFINITION)
        assert parse_hardware_class(body, strict=True).spec == bundled()[name].spec
        assert body["metadata"]["annotations"]["about.tandem.dev/source"]


def test_values_change_fields_of_a_class_leave_one_out_and_add_one(tmp_path: Path) -> None:
    own = {
        "memory": "64Gi", "memoryBandwidth": "1T", "flops": {"bf16": "100T"}, "interconnect": {"bandwidth": "32G"},
        "match": [{"label": "team/device", "values": ["npu"]}], "resourceName": "example.com/npu",
    }  # fmt: skip
    changes = {
        "h100-sxm": {"pricePerHour": "9.99", "autoscaling": {"maxNodes": 4}, "constants": {"mfu": "0.5"}},
        "v100-sxm2-32gb": {"enabled": False},
        "npu": own,
    }
    jsonschema.validate({**VALUES, "hardwareClasses": changes}, SCHEMA)
    classes = catalogue(tmp_path, {"hardwareClasses": changes}).classes
    assert len(classes) == 36
    assert "v100-sxm2-32gb" not in classes
    h100, was = parse_hardware_class(classes["h100-sxm"], strict=True).spec, bundled()["h100-sxm"].spec
    assert (h100.price_per_hour, h100.constants.mfu, h100.constants.mbu) == ("9.99", "0.5", was.constants.mbu)
    assert (h100.match, h100.memory) == (was.match, was.memory)
    assert classes["npu"]["spec"] == own


def test_without_the_bundled_classes_there_are_only_those_of_the_values(tmp_path: Path) -> None:
    assert catalogue(tmp_path, {"bundledHardwareClasses": False}).classes == {}


@pytest.mark.parametrize(
    "wrong",
    [{"h100-sxm": {"pricePerHuor": "2"}}, {"h100-sxm": {"pricePerHour": 2}}, {"H100": {}}, {"h100-sxm": False}],
    ids=["typo", "number", "name", "no-object"],
)
def test_a_wrong_change_of_a_class_is_refused_by_helm(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALUES, "hardwareClasses": wrong}, SCHEMA)


def test_the_schema_of_the_values_knows_every_field_of_a_class() -> None:
    known = SCHEMA["properties"]["hardwareClasses"]["additionalProperties"]["properties"]
    assert set(known) == {field.alias for field in HardwareClassSpec.model_fields.values()} | {"enabled", "about"}


def test_the_operator_reads_nodes_and_keeps_hardware_classes_and_may_do_nothing_else_to_them() -> None:
    rights = granted(named(template(), "ClusterRole", "tandem-system-tandem-hardware"))
    assert rights == {
        *(("nodes", verb) for verb in ("list", "watch")),
        *(("hardwareclasses", verb) for verb in ("list", "watch", "create", "patch", "delete")),
        ("hardwareclasses/status", "patch"),
    }


def test_a_changed_catalogue_starts_the_operator_anew_and_it_knows_the_file() -> None:
    checksums = []
    for price in ("1", "2"):
        (deployment,) = of_kind(
            template("--set-string", f"hardwareClasses.h100-sxm.pricePerHour={price}"), "Deployment"
        )
        pod = deployment["spec"]["template"]
        checksums.append(pod["metadata"]["annotations"]["checksum/hardware-classes"])
        file = parse_settings(pod["spec"]["containers"][0]["args"]).inventory.hardware_classes_file
        mounts = {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        assert any(file.startswith(f"{mount}/") for mount in mounts)
    assert checksums[0] != checksums[1]


def test_without_the_inventory_there_is_no_right_on_nodes_and_no_catalogue() -> None:
    objects = template("--set", "inventory=false")
    resources = {resource for role in of_kind(objects, "ClusterRole") for resource, _ in granted(role)}
    assert not resources & {"nodes", "hardwareclasses"}
    assert not [body for body in of_kind(objects, "ConfigMap") if "hardware" in body["metadata"]["name"]]
    (deployment,) = of_kind(objects, "Deployment")
    assert not parse_settings(deployment["spec"]["template"]["spec"]["containers"][0]["args"]).inventory.enabled
