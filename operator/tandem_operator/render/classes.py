"""spec.slo as the file of service classes that routers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tandem_runtime.contracts.classes import write_classes
from tandem_runtime.contracts.durations import parse_duration
from tandem_runtime.contracts.goodput import SloClass

from tandem_operator.api.spec import Slo
from tandem_operator.render.pods import ENDPOINTS_PATH

CLASSES_KEY: Final = "classes.json"
CLASSES_FILE: Final = f"{ENDPOINTS_PATH}/{CLASSES_KEY}"


def classes_data(classes: Sequence[Slo]) -> dict[str, str]:
    """Of the ConfigMap `NAME-endpoints`; empty without classes: then a router promises nothing."""
    return {CLASSES_KEY: write_classes([slo_class(one) for one in classes]).decode() + "\n"} if classes else {}


def slo_class(slo: Slo) -> SloClass:
    """Durations as seconds, percent as a share."""
    return SloClass(
        name=slo.name,
        ttft_base_s=parse_duration(slo.ttft.base),
        ttft_per_thousand_tokens_s=parse_duration(slo.ttft.per_thousand_tokens or "0s"),
        tpot_s=parse_duration(slo.tpot),
        attainment=slo.attainment_percent / 100,
        priority=slo.priority,
    )
