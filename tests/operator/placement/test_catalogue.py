"""The bundled catalogue: complete, readable, true to the collected facts, and honest about what is not known."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tandem_operator.api.crd import HARDWARE_CLASS, custom_resource_definition
from tandem_operator.api.hardware_class import parse_hardware_class
from tandem_operator.api.quantity import parse_quantity
from tandem_operator.placement import catalogue
from tandem_operator.placement.catalogue import bundled, bundled_hardware, entries, hardware_of, manifest

ROOT = Path(__file__).parents[3]
FACTS = ROOT.parent / "shared/perf/gpus.csv"
DEFINITION = custom_resource_definition(HARDWARE_CLASS)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
every_class = pytest.mark.parametrize("name", list(entries()))


def test_there_are_thirty_six_classes() -> None:
    assert len(bundled()) == 36


def test_the_charts_copy_is_fresh(tmp_path: Path) -> None:
    assert catalogue.main(["--check", "--root", str(ROOT)]) == 0
    assert catalogue.main(["--check", "--root", str(tmp_path)]) == 1
    assert catalogue.main(["--write", "--root", str(tmp_path)]) == 0
    assert catalogue.main(["--check", "--root", str(tmp_path)]) == 0


@every_class
def test_a_class_follows_the_definition_and_the_formulas_can_use_it(name: str) -> None:
    jsonschema.validate(manifest(name, entries()[name]), DEFINITION)
    hardware = bundled_hardware(name)
    assert hardware.name == name
    assert hardware.flops.half > 1e13
    assert 10e9 < hardware.memory_bytes < 400e9
    assert 100e9 < hardware.bandwidth_bytes_per_s < 10e12
    assert hardware.devices_per_node >= 1


@every_class
def test_a_class_says_where_its_figures_come_from_and_what_its_constants_are_worth(name: str) -> None:
    about = entries()[name]["about"]
    assert about["verified"] in ("yes", "partial", "no")
    assert about["source"]
    assert entries()[name]["constants"]["source"] in ("Measured", "Estimate")
    assert ("pricePerHour" in entries()[name]) == ("price" in about)


def test_only_the_four_that_were_fitted_are_called_measured() -> None:
    measured = {name for name, one in bundled().items() if one.spec.constants.source == "Measured"}
    assert measured == {"h100-sxm", "b200-sxm", "a100-sxm4-80gb", "l40s"}
    constants = bundled_hardware("h100-sxm").constants
    assert (constants.mfu, constants.k, constants.mbu, constants.all_reduce_s) == (0.68, 1.8, 0.84, 24e-6)
    assert bundled_hardware("a100-sxm4-80gb").constants.mbu == 0.64


def test_no_two_classes_claim_the_same_value() -> None:
    claims: dict[tuple[str, str], str] = {}
    for name, one in bundled().items():
        for label, values in one.ways.items():
            for value in values:
                assert claims.setdefault((label, value), name) == name
                assert "*" not in value


def test_what_the_device_cannot_compute_is_not_offered() -> None:
    assert "Int8Dynamic" not in bundled_hardware("b300-sxm").quantizations
    assert "FP8" not in bundled_hardware("a100-sxm4-80gb").quantizations
    assert "NVFP4" not in bundled_hardware("h100-sxm").quantizations
    assert bundled_hardware("t4").flops.bf16 == 0
    for name, one in bundled().items():
        capability = one.spec.limits.compute_capability
        if capability and tuple(map(int, capability.split("."))) < (8, 0):
            assert one.spec.flops.bf16 is None, name


def test_one_mi250x_module_is_two_devices_of_half_its_figures() -> None:
    assert bundled_hardware("mi250x").memory_bytes == 64e9
    assert bundled_hardware("mi250x").bandwidth_bytes_per_s == 1638e9


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"memory": "80 GB"}, "spec.memory is '80 GB'; give a quantity"),
        ({"memory": "0"}, "spec.memory is '0'; give more than 0"),
        ({"flops": {"fp8": "1978T"}}, "spec.flops needs bf16 or fp16"),
        ({"constants": {"mfu": "1.5"}}, "spec.constants.mfu is '1.5'; give a share"),
        ({"constants": {"allReduce": "24"}}, "spec.constants.allReduce is '24'; give a time such as 24us"),
        ({"limits": {"computeCapability": "9"}}, "spec.limits.computeCapability is '9'; give two numbers"),
        ({"pricePerHour": "$3"}, "spec.pricePerHour is '$3'; give a decimal"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_field_is_named_with_what_it_should_be(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="HardwareClass h100-sxm: ") as caught:
        hardware_of(parse_hardware_class(manifest("h100-sxm", {**entries()["h100-sxm"], **fields})))
    assert says in str(caught.value)


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no hardware class 'h100'; bundled are t4, .*h100-sxm"):
        bundled_hardware("h100")


@pytest.mark.skipif(not FACTS.exists(), reason=f"the collected facts are not beside the repository ({FACTS})")
def test_the_figures_are_those_of_the_collected_facts() -> None:
    with FACTS.open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows.keys() == bundled().keys()
    for name, row in rows.items():
        spec, hardware = bundled()[name].spec, bundled_hardware(name)
        share = 0.5 if name == "mi250x" else 1.0
        assert hardware.bandwidth_bytes_per_s == pytest.approx(float(row["mem_bw_gbs"]) * 1e9 * share, rel=1e-3), name
        assert hardware.memory_bytes == pytest.approx(float(row["memory_gb"]) * 1e9 * share, rel=0.08), name
        told = row["gfd_memory_mib"].lstrip("~")
        if told:
            assert hardware.memory_bytes == int(told) * 2**20, name
        for kind, column in (("bf16", "bf16_dense_tflops"), ("fp8", "fp8_dense_tflops"), ("int8", "int8_dense_tops")):
            figure = float(row[column] or 0) * 1e12 * share
            assert getattr(hardware.flops, kind) == pytest.approx(figure, rel=1e-3), (name, kind)
        assert spec.resource_name == row["resource_name"]
        assert spec.price_per_hour is None or float(spec.price_per_hour) == float(row["price_usd_h"]), name
        if name not in ("gh200", "mi250x"):  # the facts give the link to the host, and of both halves together
            both = float(row["interconnect_gbs_bidir"]) * 1e9
            assert float(parse_quantity(spec.interconnect.bandwidth)) == both / 2, name
        if row["vendor"] == "nvidia":
            assert spec.limits.compute_capability == row["compute_capability"]
            assert spec.architecture == row["arch"]
