"""What placement answers to the loop: what is rendered, what is said, or that nothing can work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tandem_operator.api.conditions import Reason
from tandem_operator.performance.shape import ModelShape
from tandem_operator.reconcile.errors import Invalid
from tandem_operator.render.hardware import Hardware


class Unplaced(Invalid):
    """Nothing that the user allows can work. Becomes Placed=False; what ran before goes on."""

    def __init__(self, message: str, status: dict[str, Any] | None = None) -> None:
        super().__init__(Reason.NO_FIT, message)
        self.status = status or {}


@dataclass(frozen=True)
class Placing:
    """What is rendered, and what is said about it."""

    hardware: Hardware
    reason: str
    message: str
    status: dict[str, Any] = field(default_factory=dict)
    holds: bool = True
    """False: nothing that is allowed can work any more; what was chosen before stays as it is."""
    blocked: dict[str, str] = field(default_factory=dict)
    """By role: why pods that wait for a node find none, and what to do."""


@dataclass(frozen=True)
class Known:
    """What is known of the model."""

    shape: ModelShape | None
    why_not: str = ""
