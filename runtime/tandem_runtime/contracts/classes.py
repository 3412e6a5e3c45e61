"""The file of service classes that the operator writes from spec.slo and routers read: the first is the default.

{"schema": 1, "classes": [{"name": "interactive", "ttft_base_s": 1.0, "ttft_per_thousand_tokens_s": 0.06,
"tpot_s": 0.05, "attainment": 0.99, "priority": 10}, ...]}
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

import msgspec

from tandem_runtime.contracts.goodput import SloClass

SCHEMA: Final = 1
NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class ClassFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As it stands in the file."""

    classes: list[SloClass]
    schema: int = SCHEMA


class Classes:
    """The classes by name. Without a file there is one, `default`, that promises nothing."""

    def __init__(self, classes: list[SloClass] | None = None) -> None:
        self.configured = bool(classes)
        self.all = list(classes or [SloClass()])
        self._by_name = {each.name: each for each in self.all}

    @property
    def default(self) -> SloClass:
        """Of requests that say none."""
        return self.all[0]

    def find(self, name: str) -> SloClass | None:
        """The default for an empty name, None for one that nobody configured. Without a file every name will do."""
        if not name or not self.configured:
            return self.default
        return self._by_name.get(name)

    @property
    def strictest_tpot_s(self) -> float:
        """Whoever shares a batch shares its speed."""
        return min(each.tpot_s for each in self.all)


def read_classes(path: Path) -> Classes:
    """Raises ValueError that names the file and what is wrong in it."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=ClassFile)
    except OSError as error:
        raise ValueError(f"no classes file {path} ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is not a file of classes: {error}") from error
    if file.schema != SCHEMA:
        raise ValueError(f"{path} has schema {file.schema}; this program reads schema {SCHEMA}")
    problem = next((text for each in file.classes if (text := complaint(each))), "")
    names = [each.name for each in file.classes]
    if not names:
        problem = "it names no class; the first one is the default"
    elif len(set(names)) < len(names):
        problem = "two classes have the same name"
    if problem:
        raise ValueError(f"{path}: {problem}")
    return Classes(file.classes)


def write_classes(classes: list[SloClass]) -> bytes:
    """The file's content."""
    return msgspec.json.format(msgspec.json.encode(ClassFile(classes)), indent=1)


def complaint(slo: SloClass) -> str:
    """What is wrong with it; empty when nothing is."""
    if not NAME.fullmatch(slo.name):
        return f"class name {slo.name[:80]!r} is not of the letters a-z, digits and -"
    times = {
        "ttft_base_s": slo.ttft_base_s,
        "ttft_per_thousand_tokens_s": slo.ttft_per_thousand_tokens_s,
        "tpot_s": slo.tpot_s,
    }
    for field, value in times.items():
        if not math.isfinite(value) or value < 0 or (value == 0 and field != "ttft_per_thousand_tokens_s"):
            return f"class {slo.name}: {field} is {value}; expected are seconds above 0"
    if not 0 < slo.attainment <= 1:
        return f"class {slo.name}: attainment is {slo.attainment}; expected is a share above 0 and up to 1"
    return ""
