"""Classes made plain for the compiler do what they did: fields, defaults, factories, equality, methods."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.contest.compiled import MODULES, PLAIN, _text
from tests.bench.contest.native import plain_classes

SOURCE = '''
from __future__ import annotations
from dataclasses import dataclass, field
import msgspec

class Pod(msgspec.Struct, frozen=True):
    """A pod."""
    name: str
    load: float = 0.0
    """Of its slots."""

    @property
    def busy(self) -> bool:
        return self.load > 0

@dataclass(slots=True)
class Line:
    pods: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.total = len(self.pods)
'''


def made(*names: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(plain_classes(SOURCE, frozenset(names)), found)
    return found


def test_a_struct_made_plain_keeps_fields_defaults_equality_and_methods() -> None:
    pod = made("Pod")["Pod"]
    assert pod.__bases__ == (object,)
    assert pod("a") == pod("a", 0.0) != pod("a", 1.0)
    assert hash(pod("a")) == hash(pod(name="a"))
    assert [pod("a", load=load).busy for load in (0.5, 0.0)] == [True, False]


def test_a_dataclass_made_plain_makes_its_lists_anew_and_finishes_itself() -> None:
    found = made("Pod", "Line")
    first, second = found["Line"](), found["Line"]([found["Pod"]("a")])
    first.pods.append(found["Pod"]("b"))
    assert (first.total, second.total) == (0, 1)
    assert found["Line"]().pods == []


def test_what_is_no_value_class_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no class Gone in the module"):
        made("Gone")
    with pytest.raises(ValueError, match="Thing is neither a struct nor a dataclass"):
        plain_classes("class Thing:\n    x: int = 0\n", frozenset({"Thing"}))


def test_every_class_that_is_made_plain_is_there() -> None:
    assert set(PLAIN) <= set(MODULES)
    for module in PLAIN:
        compile(_text(module), module, "exec")
