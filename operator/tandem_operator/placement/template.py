"""A HardwareClass to fill in, for a device that no class claims: with all that its node says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tandem_operator.api import names
from tandem_operator.api.hardware_class import KIND, LABEL_HARDWARE_CLASS
from tandem_operator.placement import labels as facts


def template(labels: Mapping[str, str], resource: str, devices: int) -> str:
    """YAML; what the node does not say is marked `# ?` and needs the data sheet. Short enough for an Event."""
    product = facts.product(labels)
    label = facts.product_label(labels) or LABEL_HARDWARE_CLASS
    name = class_name(product or resource)
    memory = facts.memory(labels)
    capability = facts.capability(labels)
    lines = [
        f"apiVersion: {names.API_VERSION}",
        f"kind: {KIND}",
        f"metadata: {{name: {name}}}",
        "spec:",
        f'  match: [{{label: {label}, values: ["{product or name}"]}}]',
        f"  resourceName: {resource}",
        f"  devicesPerNode: {devices or 8}" + ("" if devices else " # ?"),
        f"  memory: {memory // facts.MIB}Mi" if memory else "  memory: 80Gi # ? of one device",
        "  memoryBandwidth: 1000G # ? bytes/s",
        "  flops: {bf16: 100T} # ? dense; fp8, int8, fp4 if it has them",
        "  interconnect: {kind: PCIe, bandwidth: 32G, domain: 1} # ? one direction",
    ]
    if family := labels.get(facts.GFD_FAMILY):
        lines.append(f"  architecture: {family}")
    if capability:
        lines.append(f'  limits: {{computeCapability: "{capability[0]}.{capability[1]}"}} # ? quantizations')
    return "\n".join(lines) + "\n"


def class_name(product: str) -> str:
    """A name for the class of a product: lower case, no vendor, nothing that a label value may not hold."""
    text = re.sub(r"[^a-z0-9]+", "-", product.lower()).strip("-")
    return re.sub(r"^(nvidia-|amd-instinct-|amd-)(?=.)", "", text)[:63].strip("-") or "accelerator"
