"""The bundled hardware classes, and what the formulas need of a class.

`python -m tandem_operator.placement.catalogue --write` copies catalogue.yaml into the chart, `--check` finds it stale.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from tandem_operator.api import hardware_rules, names
from tandem_operator.api.hardware_class import ABOUT, KIND, HardwareClass, HardwareClassSpec, parse_hardware_class
from tandem_operator.api.quantity import parse_quantity
from tandem_operator.performance import hardware as performance

CHART_COPY: Final = Path("charts/tandem/files/hardwareclasses.yaml")

DEFAULT_DEVICES_PER_NODE: Final = 8
"""Of a class that does not say: what servers with several devices mostly have."""

_TIME_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


@functools.cache
def entries() -> dict[str, dict[str, Any]]:
    """The catalogue as written: by name, the fields of a spec beside `about`."""
    loaded: dict[str, dict[str, Any]] = yaml.load(_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return loaded


def _text() -> str:
    return resources.files(__package__).joinpath("catalogue.yaml").read_text(encoding="utf-8")


def manifest(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A HardwareClass object of an entry of the catalogue."""
    spec = {key: value for key, value in entry.items() if key != "about"}
    notes = {f"{ABOUT}{key}": value for key, value in entry.get("about", {}).items()}
    metadata = {"name": name, **({"annotations": notes} if notes else {})}
    return {"apiVersion": names.API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


@functools.cache
def bundled() -> dict[str, HardwareClass]:
    """All bundled classes by name."""
    return {name: parse_hardware_class(manifest(name, entry), strict=True) for name, entry in entries().items()}


def bundled_class(name: str) -> HardwareClass:
    """Raises ValueError with the names there are."""
    if name not in bundled():
        raise ValueError(f"there is no hardware class {name!r}; bundled are {', '.join(bundled())}")
    return bundled()[name]


def bundled_hardware(name: str) -> performance.Hardware:
    """A bundled class as the formulas need it. Raises ValueError with the names there are."""
    return hardware_of(bundled_class(name))


def hardware_of(source: HardwareClass) -> performance.Hardware:
    """A class as the formulas need it. Raises ValueError naming the class, the field and what it should look like."""
    read = _Reader(source.name)
    spec = source.spec
    link = spec.interconnect
    return performance.Hardware(
        name=source.name,
        memory_bytes=int(read.amount("memory", spec.memory)),
        bandwidth_bytes_per_s=read.amount("memoryBandwidth", spec.memory_bandwidth),
        flops=_flops(read, spec),
        interconnect=performance.Interconnect(
            kind=link.kind,
            bytes_per_s=read.amount("interconnect.bandwidth", link.bandwidth),
            domain_devices=link.domain,
        ),
        network_bytes_per_s=read.amount("network.bandwidth", spec.network.bandwidth) if spec.network else 0.0,
        devices_per_node=spec.devices_per_node or DEFAULT_DEVICES_PER_NODE,
        price_per_hour=read.decimal("pricePerHour", spec.price_per_hour) if spec.price_per_hour else None,
        compute_capability=read.capability(spec.limits.compute_capability),
        quantizations=tuple(spec.limits.quantizations),
        constants=_constants(read, spec),
        verified=source.verified,
    )


def _flops(read: _Reader, spec: HardwareClassSpec) -> performance.Flops:
    given = {key: read.amount(f"flops.{key}", text) for key, text in spec.flops.model_dump(exclude_none=True).items()}
    if not given.keys() & {"bf16", "fp16"}:
        raise ValueError(f"HardwareClass {read.name}: spec.flops needs bf16 or fp16, such as bf16: 989T")
    return performance.Flops(**given)


def _constants(read: _Reader, spec: HardwareClassSpec) -> performance.Constants:
    constants = spec.constants
    return performance.Constants(
        mfu=read.share("constants.mfu", constants.mfu),
        mbu=read.share("constants.mbu", constants.mbu),
        k=read.decimal("constants.k", constants.k),
        all_reduce_s=read.seconds("constants.allReduce", constants.all_reduce),
        utilization=read.share("constants.utilization", constants.utilization),
        overhead_bytes=int(read.amount("constants.overhead", constants.overhead)),
    )


class _Reader:
    """Reads the texts of a spec; the API server refuses wrong ones, files on a disk come as they are."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _wrong(self, path: str, text: str, wanted: str) -> ValueError:
        return ValueError(f"HardwareClass {self.name}: spec.{path} is {text!r}; give {wanted}")

    def amount(self, path: str, text: str) -> float:
        try:
            value = float(parse_quantity(text))
        except ValueError as error:
            raise self._wrong(path, text, "a quantity such as 80Gi, 3350G or 989T") from error
        if value <= 0:
            raise self._wrong(path, text, "more than 0")
        return value

    def decimal(self, path: str, text: str) -> float:
        if not re.fullmatch(hardware_rules.DECIMAL, text):
            raise self._wrong(path, text, "a decimal in quotes such as '1.8'")
        return float(text)

    def share(self, path: str, text: str) -> float:
        value = self.decimal(path, text)
        if not 0 < value <= 1:
            raise self._wrong(path, text, "a share above 0 and at most 1, such as '0.68'")
        return value

    def seconds(self, path: str, text: str) -> float:
        found = re.fullmatch(r"([0-9.]+)(ns|us|ms|s)", text)
        if not found or not re.fullmatch(hardware_rules.SHORT_TIME, text):
            raise self._wrong(path, text, "a time such as 24us")
        return float(found[1]) * _TIME_UNITS[found[2]]

    def capability(self, text: str | None) -> tuple[int, int] | None:
        """As two numbers: as texts 10.0 would be less than 9.0."""
        if text is None:
            return None
        found = re.fullmatch(r"(\d+)\.(\d+)", text)
        if not found:
            raise self._wrong("limits.computeCapability", text, "two numbers such as '9.0'")
        return int(found[1]), int(found[2])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tandem_operator.placement.catalogue", description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--write", action="store_true", help="write the chart's copy")
    choice.add_argument("--check", action="store_true", help="fail when it is stale")
    parser.add_argument("--root", type=Path, default=Path(), help="root of the repository (default: here)")
    options = parser.parse_args(arguments)
    path = options.root / CHART_COPY
    if path.exists() and path.read_text() == _text():
        return 0
    if options.check:
        print(f"{path} is stale; run: python -m tandem_operator.placement.catalogue --write", file=sys.stderr)
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text())
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
