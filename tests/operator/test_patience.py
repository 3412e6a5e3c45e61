"""How long deployments wait for nodes to be listed: from each time that they are not known, not from the start."""

from __future__ import annotations

import pytest
from tandem_operator import __main__ as program
from tandem_operator.config import InventorySettings
from tandem_operator.placement.inventory import Inventory


def test_patience_begins_anew_whenever_nodes_are_listed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ready = 100.0, False
    monkeypatch.setattr(program.time, "monotonic", lambda: now)
    step = program.make_placement(Inventory(), lambda: ready, InventorySettings(patience_seconds=15))
    is_starting = step._is_starting
    assert is_starting()
    now = 116.0
    assert not is_starting(), "nodes that cannot be listed are not waited for"
    now, ready = 500.0, True
    assert not is_starting()
    ready = False
    assert is_starting(), "a new class asks for labels that were not kept"
    now = 516.0
    assert not is_starting()
