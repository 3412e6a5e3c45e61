"""A choice and its record in the terms of rendering, and back again. Pure."""

from __future__ import annotations

import msgspec

from tandem_operator.placement.choose import Choice, Current
from tandem_operator.placement.problem import ROLES, Role
from tandem_operator.reconcile.record import Record
from tandem_operator.render.hardware import Hardware


def current_of(record: Record | None, settled: tuple[Role, ...]) -> Current | None:
    if record is None or record.prefill is None or record.decode is None:
        return None
    return Current(record.prefill.candidate, record.decode.candidate, settled)


def hardware_of(record: Record, coefficients: dict[str, str], quantization: str) -> Hardware:
    placements = {str(role): one.placement for role in ROLES if (one := record.role(role))}
    return Hardware(placements, coefficients, quantization, record.text)


def coefficients_of(choice: Choice) -> dict[str, str]:
    made = {str(role): choice.role(role).coefficients for role in ROLES}
    if None in made.values():
        return {}
    return {role: msgspec.json.format(msgspec.json.encode(one), indent=1).decode() for role, one in made.items()}


def shares_clique(choice: Choice) -> bool:
    return choice.link.kind == "scale-up domain"
