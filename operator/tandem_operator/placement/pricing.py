"""What a device costs per hour, in one unit for all classes, so that they can be compared."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from tandem_operator.performance.hardware import Hardware
from tandem_operator.placement.problem import Problem

CostUnit = Literal["price", "devices"]


class Pricing(msgspec.Struct, frozen=True):
    """`devices`: nobody told a price, so a device is a device. `price`: a class without one is taken to be as dear for
    its speed as the dearest that has one: it wins on its merits, never for want of a price."""

    unit: CostUnit
    assumed: dict[str, float]
    """Prices of classes that have none."""

    def of(self, hardware: Hardware) -> float:
        """Of one device and hour."""
        if self.unit == "devices":
            return 1.0
        known = hardware.price_per_hour
        return self.assumed[hardware.name] if known is None else known


def pricing_of(problem: Problem) -> Pricing:
    """From the classes that have nodes, or may get some."""
    present = [offer.hardware for offer in problem.offers if offer.largest_node]
    priced = [(one.price_per_hour, _power(one)) for one in present if one.price_per_hour is not None]
    if not priced:
        return Pricing("devices", {})
    dearest = max((price / power for price, power in priced if power), default=0.0)
    highest = max(price for price, _ in priced)
    unpriced = [offer.hardware for offer in problem.offers if offer.hardware.price_per_hour is None]
    return Pricing("price", {one.name: dearest * _power(one) or highest for one in unpriced})


def _power(hardware: Hardware) -> float:
    """Arithmetic for prompts and bandwidth for answers, as their geometric mean: what both pools are bought for."""
    return math.sqrt(hardware.flops.half * hardware.bandwidth_bytes_per_s)
