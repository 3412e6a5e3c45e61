"""CEL rules of a HardwareClass: what the API server refuses, each with a sentence that a person can act on."""

from __future__ import annotations

from typing import Any, Final

from tandem_operator.api.rules import rule

DECIMAL: Final = "^[0-9]+([.][0-9]+)?$"
SHORT_TIME: Final = "^[0-9]+([.][0-9]+)?(ns|us|ms|s)$"


def amount(example: str) -> dict[str, Any]:
    """A positive quantity."""
    return rule(
        "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        f"must be a quantity above 0 such as {example} (k, M, G, T, P or Ki, Mi, Gi, Ti)",
    )


SHARE_RULE: Final = rule(
    f"self.matches('{DECIMAL}') && double(self) > 0.0 && double(self) <= 1.0",
    "must be a share above 0 and at most 1, as a decimal in quotes such as '0.68'",
)
FACTOR_RULE: Final = rule(f"self.matches('{DECIMAL}')", "must be a decimal in quotes such as '1.8'")
SHORT_TIME_RULE: Final = rule(f"self.matches('{SHORT_TIME}')", "must be a time such as 24us or 1.5ms")
PRICE_RULE: Final = rule(f"self.matches('{DECIMAL}')", "must be a decimal in quotes such as '2.69'")
CAPABILITY_RULE: Final = rule("self.matches('^[0-9]+[.][0-9]+$')", "must be two numbers such as 9.0, as NVIDIA has it")
RESOURCE_RULE: Final = rule(
    "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
    "must be an extended resource with a domain, such as nvidia.com/gpu",
)

SPEC_RULES: Final = (
    rule(
        "has(self.flops.bf16) || has(self.flops.fp16)",
        "flops needs bf16 or fp16: without 16 bit arithmetic no model runs on the device",
    ),
    rule(
        "!has(self.autoscaling) || has(self.devicesPerNode)",
        "autoscaling needs devicesPerNode: nodes that are not there yet cannot say how many devices they have",
    ),
)

ROOT_RULES: Final = (
    rule(
        "size(self.metadata.name) <= 63",
        "metadata.name must have at most 63 characters, because it is also the value of a node label",
    ),
)
