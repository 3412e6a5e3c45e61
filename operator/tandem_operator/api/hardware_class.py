"""HardwareClass: how to recognise nodes of one kind of accelerator, and the facts that sizing and prediction need."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from tandem_operator.api import hardware_rules, names, rules
from tandem_operator.api.spec import ApiModel

KIND: Final = "HardwareClass"
PLURAL: Final = "hardwareclasses"
LABEL_HARDWARE_CLASS: Final = "tandem.dev/hardware-class"
"""Set on a node by hand it names the class, whatever else the node says: for devices that nothing labels."""
LABEL_GKE_ACCELERATOR: Final = "cloud.google.com/gke-accelerator"
GKE_SLICE_LABELS: Final = ("cloud.google.com/gke-gpu-partition-size", "cloud.google.com/gke-gpu-sharing-strategy")
"""GKE names a slice or a share of a GPU by the whole one, and sets one of these beside it."""

ABOUT: Final = f"about.{names.GROUP}/"
"""Prefix of annotations that say where the figures of a class come from: verified, source, price, note."""

Quantization = Literal["None", "Int8Dynamic", "Int8", "Int4", "FP8", "MXFP4", "NVFP4"]


def _text(description: str, *checks: dict[str, Any], length: int = 32, **more: Any) -> Any:
    extra = rules.validations(*checks) if checks else None
    return Field(description=description, max_length=length, json_schema_extra=extra, **more)


def _amount(description: str, example: str, **more: Any) -> Any:
    return _text(description, hardware_rules.amount(example), **more)


def _share(description: str, default: str) -> Any:
    return _text(description, hardware_rules.SHARE_RULE, default=default, length=16)


class Match(ApiModel):
    """One way to recognise a node; the first of a class's ways that holds is enough."""

    label: str = Field(
        description="Key of a node label, such as nvidia.com/gpu.product or node.kubernetes.io/instance-type.",
        min_length=1,
        max_length=317,
    )
    values: list[str] = Field(
        description="Values of that label, each exact: they become nodeAffinity `In`. No patterns.",
        min_length=1,
        max_length=32,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "maxLength": 63, "minLength": 1},
        },
    )


class Flops(ApiModel):
    """Dense arithmetic of one device, in operations per second. Data sheets often print the sparse figure: halve it."""

    bf16: str | None = _amount("With bfloat16, such as 989T. Absent: the device has none.", "989T", default=None)
    fp16: str | None = _amount(
        "With float16, where it differs from bfloat16 or there is none of that (Turing, Volta).", "65T", default=None
    )
    fp8: str | None = _amount("With 8 bit floats, such as 1978T.", "1978T", default=None)
    int8: str | None = _amount("With 8 bit integers, such as 1978T.", "1978T", default=None)
    fp4: str | None = _amount("With 4 bit floats (NVFP4, MXFP4), such as 9P.", "9P", default=None)


class Interconnect(ApiModel):
    """How devices of one replica reach each other."""

    kind: str = _text(
        "NVLink, InfinityFabric, ICI, NeuronLink, RoCE, PCIe ... What begins with PCIe is a host bus: no replica is"
        " then split over devices for prefill.",
        default="PCIe",
        min_length=1,
    )
    bandwidth: str = _amount(
        "Bytes per second of one device in one direction, such as 450G. Data sheets print both directions together:"
        " halve that.",
        "450G",
    )
    domain: int = Field(
        default=1,
        description="Devices that reach each other this way (scale-up domain). 1: none but through the host.",
        ge=1,
        le=65536,
        json_schema_extra={"format": "int32"},
    )


class Network(ApiModel):
    """How a node of this class reaches other nodes."""

    kind: str = _text("Ethernet, RoCE, InfiniBand or EFA.", default="Ethernet", min_length=1)
    bandwidth: str = _amount(
        "Bytes per second in one direction, as far as one device may use it: a NIC of 400 Gbit/s per device is 50G.",
        "50G",
    )


class Limits(ApiModel):
    """What the device can run."""

    compute_capability: str | None = _text(
        "NVIDIA compute capability such as 9.0; compared as numbers, and with what the node says of itself.",
        hardware_rules.CAPABILITY_RULE,
        default=None,
        length=8,
    )
    quantizations: list[Quantization] = Field(
        default=["None"],
        description="How weights may be stored for it. None: as in the checkpoint.",
        min_length=1,
        max_length=7,
        json_schema_extra={"default": ["None"], "x-kubernetes-list-type": "atomic"},
    )


class Constants(ApiModel):
    """How well engines use the device. Fitted to measurements where source says so, else a cautious guess."""

    source: Literal["Measured", "Estimate"] = Field(
        default="Estimate", description="Measured: fitted to this class. Estimate: taken from a similar one."
    )
    mfu: str = _share("Share of the arithmetic that prefill reaches.", "0.6")
    mbu: str = _share("Share of the memory bandwidth that decode reaches.", "0.7")
    k: str = _text(
        "Time of the all-reduces of prefill against bytes by bandwidth.",
        hardware_rules.FACTOR_RULE,
        default="2.0",
        length=16,
    )
    all_reduce: str = _text(
        "One all-reduce of one decode step, such as 24us.", hardware_rules.SHORT_TIME_RULE, default="24us", length=16
    )
    utilization: str = _share("Share of the memory that an engine may fill.", "0.90")
    overhead: str = _amount("Bytes of one device kept for context, graphs and fragments.", "3.5Gi", default="3.5Gi")


class Autoscaling(ApiModel):
    """What a node autoscaler (Karpenter, Cluster Autoscaler) may add."""

    max_nodes: int = Field(
        description="Nodes of this class that it may add to those that are there. Needs devicesPerNode.",
        ge=0,
        le=100_000,
        json_schema_extra={"format": "int32"},
    )


class HardwareClassSpec(ApiModel):
    """One kind of accelerator. Every figure is of one device as Kubernetes hands it out."""

    model_config = ConfigDict(json_schema_extra=rules.validations(*hardware_rules.SPEC_RULES))

    match: list[Match] = Field(
        default_factory=list,
        description=(
            "Ways to recognise a node, the most telling first: the first of these labels that a node has decides. A"
            " node that contradicts the class in memory, compute capability or family, or whose devices are shared or"
            " partitioned, is not taken unless the label value names just that. The node label"
            " tandem.dev/hardware-class: NAME always counts."
        ),
        max_length=64,
        json_schema_extra={"default": [], "x-kubernetes-list-type": "atomic"},
    )
    resource_name: str = _text(
        "Extended resource by which pods ask for it, such as nvidia.com/gpu. Taints of this key are tolerated.",
        hardware_rules.RESOURCE_RULE,
        default="nvidia.com/gpu",
        length=253,
        min_length=3,
    )
    devices_per_node: int | None = Field(
        default=None,
        description="Devices of a whole node: for nodes that do not exist yet. Those that do say it themselves.",
        ge=1,
        le=1024,
        json_schema_extra={"format": "int32"},
    )
    memory: str = _amount(
        "Memory of one device as the driver reports it, such as 81559Mi. Less than the name says; where nodes tell it"
        " (nvidia.com/gpu.memory), that goes before.",
        "80Gi",
    )
    memory_bandwidth: str = _amount("Bytes per second, such as 3350G.", "3350G")
    flops: Flops = Field(description="Dense arithmetic of one device, in operations per second.")
    interconnect: Interconnect = Field(description="How devices of one replica reach each other.")
    network: Network | None = Field(
        default=None, description="How a node reaches other nodes; prices the hand-off of KV pages. Absent: not known."
    )
    architecture: str | None = _text(
        "Generation, as nodes tell it in nvidia.com/gpu.family (hopper, ada-lovelace ...); a node that tells another"
        " is not taken.",
        default=None,
    )
    price_per_hour: str | None = _text(
        "Price of one device per hour, a decimal such as 2.69, in one currency. Absent: as the dearest of its speed.",
        hardware_rules.PRICE_RULE,
        default=None,
        length=16,
    )
    tdp_watts: int | None = Field(
        default=None,
        description="Electric power of one device at most.",
        ge=1,
        le=100_000,
        json_schema_extra={"format": "int32"},
    )
    limits: Limits = Field(
        default_factory=Limits, description="What the device can run.", json_schema_extra={"default": {}}
    )
    constants: Constants = Field(
        default_factory=Constants, description="How well engines use the device.", json_schema_extra={"default": {}}
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="What a node autoscaler may add. Absent: only nodes that are there count."
    )


class HardwareClass(ApiModel):
    """Name and spec, as read from the API server or from the catalogue."""

    name: str
    generation: int = 0
    verified: bool = True
    """Whether the figures stand on a page that was read (annotation about.tandem.dev/verified), not on memory."""
    spec: HardwareClassSpec

    @property
    def ways(self) -> dict[str, list[str]]:
        """Values by label, the most telling label first, before all the one that is set by hand.

        The first of these labels that a node has decides: an instance type says nothing where the driver spoke.
        """
        ways = {LABEL_HARDWARE_CLASS: [self.name]}
        for match in self.spec.match:
            ways.setdefault(match.label, []).extend(match.values)
        return ways


def node_selector_terms(source: HardwareClass) -> list[dict[str, Any]]:
    """nodeSelectorTerms of a node affinity (any of them is enough) that hold for just the nodes of this class."""
    terms: list[dict[str, Any]] = []
    earlier: list[str] = []
    for label, values in source.ways.items():
        absent = [*earlier, *(GKE_SLICE_LABELS if label == LABEL_GKE_ACCELERATOR else ())]
        terms.append(
            {
                "matchExpressions": [
                    {"key": label, "operator": "In", "values": values},
                    *({"key": other, "operator": "DoesNotExist"} for other in absent),
                ]
            }
        )
        earlier.append(label)
    return terms


def parse_hardware_class(body: dict[str, Any], strict: bool = False) -> HardwareClass:
    """Raises ValueError, a sentence per wrong field; `strict` also refuses fields that do not exist."""
    metadata = body.get("metadata") or {}
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a HardwareClass needs metadata.name, such as h100-sxm")
    try:
        spec = HardwareClassSpec.model_validate(body.get("spec") or {}, extra="forbid" if strict else "ignore")
    except ValidationError as error:
        raise ValueError("; ".join(f"HardwareClass {name}: {_sentence(found)}" for found in error.errors())) from error
    verified = (metadata.get("annotations") or {}).get(f"{ABOUT}verified", "yes") == "yes"
    return HardwareClass(name=name, generation=metadata.get("generation", 0), verified=verified, spec=spec)


def _sentence(error: Any) -> str:
    path = ".".join(["spec", *map(str, error["loc"])])
    if error["type"] == "missing":
        return f"{path} is required"
    if error["type"] == "extra_forbidden":
        return f"{path}: there is no such field; see kubectl explain hardwareclass.spec --recursive"
    return f"{path}: {error['msg']}, not {error['input']!r}"
