"""status.placement, field by field. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tandem_operator.placement.candidates import Refusal, Rejection
from tandem_operator.placement.choose import Choice, RoleChoice
from tandem_operator.placement.problem import ROLES
from tandem_operator.reconcile.record import Record, RoleRecord

LISTED: Final = 64
"""The API server takes no more classes and no more rejections; of a refusal there may be several for one class."""


def chosen(choice: Choice, record: Record) -> dict[str, Any]:
    """Of a choice that was made."""
    status: dict[str, Any] = {}
    for role in ROLES:
        if one := record.role(role):
            status[role] = chosen_role(choice.role(role), one)
    status |= {"ttft": milliseconds(choice.ttft_s), "tpot": milliseconds(choice.tpot_s)}
    if choice.price_per_hour is not None:
        status["pricePerHour"] = f"{choice.price_per_hour:.2f}"
    return status


def plain(record: Record, why: str) -> dict[str, Any]:
    """Of what was not chosen but said, or kept."""
    return {str(role): plain_role(one, why) for role in ROLES if (one := record.role(role))}


def chosen_role(pool: RoleChoice, record: RoleRecord) -> dict[str, Any]:
    return {
        "class": pool.candidate.hardware_class,
        "classes": list(record.classes[:LISTED]),
        "resource": record.resource,
        "gpus": record.devices,
        "tensorParallel": record.tensor_parallel,
        "quantization": record.quantization,
        "bound": pool.bound,
        "why": pool.why,
        "rejected": rejections(pool.rejected),
    }


def plain_role(record: RoleRecord, why: str) -> dict[str, Any]:
    return {
        "class": record.classes[0] if record.classes else "",
        "classes": list(record.classes[:LISTED]),
        "resource": record.resource,
        "gpus": record.devices,
        "tensorParallel": record.tensor_parallel,
        "quantization": record.quantization,
        "why": why,
    }


def refused_roles(refusal: Refusal) -> dict[str, Any]:
    """Which classes were rejected; what was chosen is nothing."""
    told = {"prefill": refusal.prefill, "decode": refusal.decode}
    return {
        role: {
            "class": "", "gpus": 0, "tensorParallel": 0, "why": refusal.reason,
            "rejected": rejections(items),
        }
        for role, items in told.items()
        if items
    }  # fmt: skip


def rejections(items: Iterable[Rejection]) -> list[dict[str, str]]:
    """The nearest to being taken, which come first."""
    return [{"class": item.hardware_class, "reason": item.reason} for item in items][:LISTED]


def milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"
