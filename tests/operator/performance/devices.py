"""A few devices by their data sheets, for formulas that need one."""

from __future__ import annotations

from typing import Final

from tandem_operator.performance.hardware import Constants, Flops, Hardware, Interconnect

MIB: Final = 2**20

H100: Final = Hardware(
    name="h100-sxm",
    memory_bytes=81559 * MIB,
    bandwidth_bytes_per_s=3.35e12,
    flops=Flops(bf16=989e12, fp8=1978e12, int8=1978e12),
    interconnect=Interconnect(kind="NVLink4", bytes_per_s=450e9, domain_devices=8),
    constants=Constants(mfu=0.68, mbu=0.84, k=1.8),
)
A100: Final = Hardware(
    name="a100-sxm4-80gb",
    memory_bytes=81920 * MIB,
    bandwidth_bytes_per_s=2.039e12,
    flops=Flops(bf16=312e12, int8=624e12),
    interconnect=Interconnect(kind="NVLink3", bytes_per_s=300e9, domain_devices=8),
    constants=Constants(mfu=0.78, mbu=0.64, k=2.0),
)
L40S: Final = Hardware(
    name="l40s",
    memory_bytes=46068 * MIB,
    bandwidth_bytes_per_s=864e9,
    flops=Flops(bf16=362.05e12, fp8=733e12, int8=733e12),
    interconnect=Interconnect(kind="PCIe4", bytes_per_s=32e9, domain_devices=1),
    devices_per_node=8,
    constants=Constants(mfu=0.6, mbu=0.76),
)
