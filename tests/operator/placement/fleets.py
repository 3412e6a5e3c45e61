"""Models and hardware classes for the stories of placement: public figures, written as values."""

from __future__ import annotations

from typing import Any

import msgspec
from tandem_operator.performance.hardware import GIB, Constants, Flops, Hardware, Interconnect
from tandem_operator.performance.shape import AttentionLayers, ModelShape
from tandem_operator.placement.problem import Offer, Problem

TERA = 1e12


def gpu(
    name: str, memory_gib: float, bandwidth_gb: float, bf16: float, fp8: float = 0.0, *, price: float | None = 1.0,
    link: str = "NVLink", link_gb: float = 450, domain: int = 8, network_gb: float = 50, quantizations: Any = None,
    constants: Constants | None = None,
) -> Hardware:  # fmt: skip
    """`network_gb`: GB/s of one device to other nodes."""
    runs = ("None", "Int8", "Int4", "Int8Dynamic", "MXFP4", *(("FP8",) if fp8 else ()))
    return Hardware(
        name=name,
        memory_bytes=int(memory_gib * GIB),
        bandwidth_bytes_per_s=bandwidth_gb * 1e9,
        flops=Flops(bf16=bf16 * TERA, fp8=fp8 * TERA, int8=2 * bf16 * TERA),
        interconnect=Interconnect(kind=link, bytes_per_s=link_gb * 1e9, domain_devices=domain),
        network_bytes_per_s=network_gb * 1e9,
        devices_per_node=8,
        price_per_hour=price,
        quantizations=runs if quantizations is None else quantizations,
        constants=constants or Constants(),
    )


L4 = gpu("l4", 22.5, 300, 121, 242, price=0.7, link="PCIe4 x16", link_gb=32, domain=1, network_gb=3)
L40S = gpu("l40s", 45, 864, 362, 733, price=0.9, link="PCIe4 x16", link_gb=32, domain=1, network_gb=6)
A100 = gpu("a100-sxm4-80gb", 80, 2039, 312, price=1.6, link_gb=300, network_gb=12)
H100 = gpu("h100-sxm", 79.6, 3350, 989, 1978, price=2.7)
H200 = gpu("h200-sxm", 140.4, 4800, 989, 1978, price=3.6)
B200 = gpu("b200-sxm", 178, 7700, 2250, 4500, price=6.0, link_gb=900)
GB200 = gpu("gb200", 185, 8000, 2500, 5000, price=7.0, link_gb=900, domain=72)
CLASSES = (L4, L40S, A100, H100, H200, B200, GB200)


def dense(
    name: str, layers: int, hidden: int, heads: int, kv_heads: int, billions: float, *, head_dim: int = 128,
    vocabulary: int = 128_256, context: int = 131_072, **more: Any,
) -> ModelShape:  # fmt: skip
    """A GQA model in bf16."""
    parameters = int(billions * 1e9)
    embedding = vocabulary * hidden
    linear = parameters - 2 * embedding
    return ModelShape(**{
        "name": name, "layers": layers, "hidden": hidden, "heads": heads, "head_dim": head_dim,
        "vocabulary": vocabulary, "parameters": parameters, "active_parameters": parameters - embedding,
        "linear_parameters": linear, "active_linear_parameters": linear, "max_context_tokens": context,
        "weight_bytes": 2 * parameters,
        "attention": (AttentionLayers(layers=layers, kv_heads=kv_heads, key_dim=head_dim, value_dim=head_dim),),
        **more,
    })  # fmt: skip


LLAMA_8B = dense("llama-3.1-8b", 32, 4096, 32, 8, 8.03)
LLAMA_70B = dense("llama-3.1-70b", 80, 8192, 64, 8, 70.55)
LLAMA_405B = dense("llama-3.1-405b", 126, 16384, 128, 8, 405.9)
DEEPSEEK_V3 = dense(
    "deepseek-v3", 61, 7168, 128, 0, 671.0, head_dim=192, vocabulary=129_280, context=163_840,
    attention=(AttentionLayers(layers=61, latent_dim=576, key_dim=192, value_dim=128),),
    active_parameters=int(37e9), active_linear_parameters=int(35e9), expert_parameters=int(654e9),
    experts=256, experts_active=8, weight_bytes=int(688e9), stored_quantization="FP8",
)  # fmt: skip
GPT_OSS_120B = dense(
    "gpt-oss-120b", 36, 2880, 64, 8, 116.8, head_dim=64, vocabulary=201_088,
    attention=(
        AttentionLayers(layers=18, kv_heads=8, key_dim=64, value_dim=64),
        AttentionLayers(layers=18, kv_heads=8, key_dim=64, value_dim=64, window_tokens=128),
    ),
    active_parameters=int(5.1e9), active_linear_parameters=int(4.5e9), expert_parameters=int(114.7e9),
    experts=128, experts_active=4, weight_bytes=int(65.2e9), stored_quantization="MXFP4",
)  # fmt: skip
MODELS = (LLAMA_8B, LLAMA_70B, LLAMA_405B, DEEPSEEK_V3, GPT_OSS_120B)


def offer(hardware: Hardware, nodes: int = 4, devices: int = 8, **more: Any) -> Offer:
    """`nodes` empty nodes of `devices`."""
    return Offer(hardware=hardware, free=((devices, nodes),) if nodes else (), largest_node=devices, **more)


def problem(shape: ModelShape, *hardware: Hardware, nodes: int = 4, **more: Any) -> Problem:
    """All classes with `nodes` nodes of eight."""
    given: dict[str, Any] = {"max_context_tokens": 16_384, **more}
    return Problem(shape=shape, offers=tuple(offer(one, nodes) for one in hardware), **given)


def change(value: Any, **fields: Any) -> Any:
    """A copy of a frozen struct with other fields."""
    return msgspec.structs.replace(value, **fields)
