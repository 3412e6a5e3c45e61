"""One hardware class as the formulas need it: facts of one device, of its links, and how well engines use them."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

GIB: Final = 2**30

Quantization = Literal["None", "Int8Dynamic", "Int8", "Int4", "FP8", "MXFP4", "NVFP4"]
"""None: as stored in the checkpoint. Int8Dynamic, FP8, NVFP4: weights and activations; Int8, Int4, MXFP4: weights."""


class Interconnect(msgspec.Struct, frozen=True, kw_only=True):
    """How devices of one replica reach each other."""

    kind: str = "PCIe"
    """NVLink, InfinityFabric, ICI, NeuronLink, RoCE, PCIe ...; only what begins with PCIe is a host bus."""
    bytes_per_s: float
    """Of one device in one direction: half of what data sheets print."""
    domain_devices: int = 1
    """Devices that reach each other this way (scale-up domain); 1: none."""

    @property
    def is_host_bus(self) -> bool:
        """Whether all-reduces cross PCIe: prefill is then never tensor-parallel."""
        return self.kind.lower().startswith("pcie")


class Constants(msgspec.Struct, frozen=True, kw_only=True):
    """How well engines use the device, and what they keep for themselves. Each is settable in the HardwareClass."""

    mfu: float = 0.6
    """Share of dense FLOP/s that prefill reaches: the lowest of the calibrated GPUs, for all others."""
    mbu: float = 0.7
    """Share of memory bandwidth that decode reaches."""
    k: float = 2.0
    """All-reduce traffic of prefill against the textbook's, with what overlap hides."""
    all_reduce_s: float = 24e-6
    """One all-reduce of one decode step; the same on every calibrated GPU."""
    utilization: float = 0.90
    """Share of device memory that an engine may fill."""
    overhead_bytes: int = int(3.5 * GIB)
    """Context, graphs, fragments of one device."""
    weight_growth: float = 1.02
    """Loaded weights against the files: alignment and buffers."""


class Flops(msgspec.Struct, frozen=True, kw_only=True):
    """Dense FLOP/s of one device by arithmetic; 0: it has none of that kind."""

    bf16: float = 0.0
    fp16: float = 0.0
    """Only where it differs from bf16 or there is no bf16 (Volta, Turing)."""
    fp8: float = 0.0
    int8: float = 0.0
    fp4: float = 0.0

    @property
    def half(self) -> float:
        """16-bit arithmetic, whichever the device has."""
        return self.bf16 or self.fp16


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """One hardware class. Every figure is of one device as Kubernetes hands it out, in bytes, seconds, FLOP/s."""

    name: str
    memory_bytes: int
    bandwidth_bytes_per_s: float
    flops: Flops
    interconnect: Interconnect
    network_bytes_per_s: float = 0.0
    """Of one device to other nodes, one direction; 0: not known."""
    devices_per_node: int = 8
    price_per_hour: float | None = None
    """Of one device."""
    compute_capability: tuple[int, int] | None = None
    """Of NVIDIA devices. A pair of numbers, since 10.0 is more than 9.0 (as strings it is not)."""
    quantizations: tuple[Quantization, ...] = ("None",)
    constants: Constants = Constants()
    verified: bool = True
    """Whether the figures stand on a page that was read, not on memory."""
