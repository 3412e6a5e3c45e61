"""The prior against the formulas worked out by hand, what binds, and what must hold for any model and device."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_operator.performance.config_reader import read_shape
from tandem_operator.performance.hardware import Flops, Hardware, Interconnect, Quantization
from tandem_operator.performance.roofline import (
    crosses_host_bus,
    limit,
    prefill_refusal,
    prefill_seconds,
    prior,
    step_seconds,
    terms,
)
from tandem_operator.placement.catalogue import bundled, bundled_hardware

from tests.operator.performance.devices import A100, H100, L40S
from tests.operator.performance.public_models import PUBLIC_MODELS

SHAPES: Final = {name: read_shape(model.config, name=name) for name, model in PUBLIC_MODELS.items()}
LLAMA_8B, LLAMA_70B = SHAPES["Llama-3.1-8B"], SHAPES["Llama-3.1-70B"]
DEGREES: Final = (1, 2, 4, 8)


def test_prefill_of_8b_on_one_h100_is_its_arithmetic() -> None:
    c = prior(LLAMA_8B, H100)
    multiplied = 8_030_261_248 - 128256 * 4096  # the input embedding is looked up, not multiplied
    flops = 2 * multiplied * 4096 + 2 * 32 * 32 * 128 * 4096**2
    assert prefill_seconds(c, 4096) - c.prefill.theta0_s == pytest.approx(flops / (989e12 * 0.68))
    assert 0.080 < prefill_seconds(c, 4096) < 0.110


def test_prefill_of_70b_on_four_adds_its_all_reduces() -> None:
    c = prior(LLAMA_70B, H100, 4)
    flops = 2 * (70_553_706_496 - 128256 * 8192) * 4096 + 2 * 80 * 64 * 128 * 4096**2
    link = 1.8 * 2 * 80 * 2 * 3 / 4 * 4096 * 8192 * 2 / 450e9
    assert prefill_seconds(c, 4096) - c.prefill.theta0_s == pytest.approx(flops / (4 * 989e12 * 0.68) + link)


def test_a_step_reads_the_weights_and_the_kv_and_samples_each_sequence() -> None:
    read = (2 * (70_553_706_496 - 128256 * 8192) + 32 * 4096 * 327_680) / (4 * 3.35e12 * 0.84)
    assert step_seconds(prior(LLAMA_70B, H100, 4), 32, 32 * 4096) == pytest.approx(read + 2 * 80 * 24e-6 + 32 * 30e-6)


def test_prefix_cached_tokens_cost_only_the_attention_to_them() -> None:
    c = prior(LLAMA_8B, H100)
    whole, rest = prefill_seconds(c, 8192), prefill_seconds(c, 4096, 4096)
    assert prefill_seconds(c, 4096) < rest < whole
    assert prefill_seconds(c, 4096) + rest - c.prefill.theta0_s == pytest.approx(whole)


def test_capacity_and_link_are_those_of_the_replica() -> None:
    hardware = msgspec.structs.replace(H100, network_bytes_per_s=50e9)
    c = prior(LLAMA_70B, hardware, 4)
    assert c.kv_bytes_per_token == 327_680
    assert c.link.bytes_per_s == 200e9
    assert c.kv_tokens == pytest.approx((71.68 - 38.01) * 2**30 / 81_920, rel=2e-3)  # GiB of each of four, 2 heads
    assert prior(LLAMA_70B, H100, 2).kv_tokens < 20_000
    assert prior(LLAMA_70B, H100, 1).kv_tokens == 0


def test_stages_of_a_pipeline_add_room_and_take_nothing_off_a_step() -> None:
    one, two = prior(LLAMA_70B, H100, 4), prior(LLAMA_70B, H100, 4, pipeline_parallel=2)
    assert (two.prefill, two.decode) == (one.prefill, one.decode)
    assert two.kv_tokens > 2 * one.kv_tokens
    assert two.link.bytes_per_s == 2 * one.link.bytes_per_s
    assert two.load_s < one.load_s


@pytest.mark.parametrize(("shape", "measured_s"), [(LLAMA_8B, 0.977), (LLAMA_70B, 5.1)])
def test_tensor_parallel_prefill_over_pcie_takes_what_silicon_tables_say(shape: object, measured_s: float) -> None:
    assert isinstance(shape, type(LLAMA_8B))
    assert prefill_seconds(prior(shape, L40S, 4), 4096) == pytest.approx(measured_s, rel=0.1)
    assert terms(shape, L40S, 4).prefill_bound(4096) == "link"


def test_tensor_parallel_prefill_over_pcie_is_refused_with_the_reason() -> None:
    assert prefill_refusal(L40S, 1) is None
    assert prefill_refusal(H100, 8) is None
    assert "tensor-parallel prefill on 2 x l40s would cross PCIe4" in str(prefill_refusal(L40S, 2))
    bridge = Interconnect(kind="NVLink4", bytes_per_s=300e9, domain_devices=2)
    pairs = msgspec.structs.replace(H100, name="pairs", interconnect=bridge)
    assert not crosses_host_bus(pairs, 2)
    assert "4 x pairs would cross PCIe (scale-up domain: 2)" in str(prefill_refusal(pairs, 4))


def test_what_binds_is_named() -> None:
    one = terms(LLAMA_8B, H100)
    assert one.prefill_bound(4096) == "compute"
    assert one.decode_bound(16, 16 * 2000) == "bandwidth"
    assert one.decode_bound(100, 100 * 4000, kv_tokens_room=401_000) == "memory"
    assert one.decode_bound(100, 100 * 4000, kv_tokens_room=410_000) == "bandwidth"
    assert terms(SHAPES["Qwen2.5-0.5B"], H100, 8).decode_bound(1, 100) == "link"
    assert terms(SHAPES["DeepSeek-V3"], H100, 8).prefill_bound(64) == "bandwidth"  # all experts are read for few tokens


def test_narrow_arithmetic_counts_where_the_device_has_it() -> None:
    plain, narrow = terms(LLAMA_70B, H100, 4), terms(LLAMA_70B, H100, 4, "FP8")
    assert narrow.arithmetic == "fp8"
    assert narrow.prefill_compute_s == pytest.approx(plain.prefill_compute_s * 0.68 / (2 * 0.58))
    assert narrow.prefill_attention_s == plain.prefill_attention_s
    assert 0.5 < narrow.decode_weights_s / plain.decode_weights_s < 0.53
    assert terms(LLAMA_70B, A100, 4, "FP8").arithmetic == "16 bit"
    assert terms(LLAMA_70B, A100, 4, "Int8Dynamic").arithmetic == "int8"
    assert terms(LLAMA_70B, H100, 4, "Int4").arithmetic == "16 bit"


def test_full_windows_and_states_cost_a_sequence_the_same_however_long_it_is() -> None:
    gemma = prior(SHAPES["Gemma-3-27B"], H100, 2)
    growing = 10 * 2 * 8 * 128 * 2 / (3.35e12 * 0.84)
    assert gemma.decode.phi2_s == pytest.approx(growing)
    assert gemma.decode.phi1_s == pytest.approx(30e-6 + growing / 10 * 52 * 1024)
    hybrid = prior(SHAPES["Nemotron-H-8B"], H100)
    assert hybrid.decode.phi1_s == pytest.approx(30e-6 + 2 * 102_105_088 / (3.35e12 * 0.84), rel=1e-3)
    assert prior(LLAMA_8B, H100).decode.phi1_s == pytest.approx(30e-6)


def test_a_larger_batch_reads_more_experts() -> None:
    shape = SHAPES["Qwen3-235B-A22B"]
    few, many = (prior(shape, H100, 8, sequences=n).decode.phi0_s for n in (1, 64))
    assert many > 3.5 * few


@pytest.mark.parametrize("missing", ["memoryBandwidth", "flops"])
def test_a_class_without_the_facts_is_named(missing: str) -> None:
    gone = {"bandwidth_bytes_per_s": 0.0} if missing == "memoryBandwidth" else {"flops": Flops(fp8=1e15)}
    with pytest.raises(ValueError, match=f"hardware class h100-sxm has no {missing}"):
        prior(LLAMA_8B, msgspec.structs.replace(H100, **gone))


@pytest.mark.parametrize("name", list(bundled()))
def test_no_prior_is_faster_than_physics_on_any_class(name: str) -> None:
    hardware = bundled_hardware(name)
    for shape in SHAPES.values():
        for degree in DEGREES:
            ours, physics = prior(shape, hardware, degree), limit(shape, hardware, degree)
            for tokens in (100, 1000, 30_000):
                assert ours.prefill_seconds(tokens) > physics.prefill_seconds(tokens) > 0
            for sequences in (1, 64, 200):
                assert ours.step_seconds(sequences, 1000 * sequences) > physics.step_seconds(
                    sequences, 1000 * sequences
                )


def faster(hardware: Hardware, bandwidth: float, flops: float, link: float) -> Hardware:
    f, interconnect = hardware.flops, hardware.interconnect
    return msgspec.structs.replace(
        hardware,
        bandwidth_bytes_per_s=hardware.bandwidth_bytes_per_s * bandwidth,
        flops=Flops(bf16=f.bf16 * flops, fp8=f.fp8 * flops, int8=f.int8 * flops),
        interconnect=msgspec.structs.replace(interconnect, bytes_per_s=interconnect.bytes_per_s * link),
    )


factors = st.floats(1, 10)


@given(
    st.sampled_from(list(SHAPES)), st.sampled_from([H100, A100, L40S]), st.sampled_from(DEGREES),
    st.sampled_from(("None", "FP8", "Int4", "Int8Dynamic")), factors, factors, factors,
    st.integers(1, 30_000), st.integers(0, 30_000), st.integers(1, 256),
)  # fmt: skip
def test_a_better_device_is_never_slower(
    name: str, hardware: Hardware, degree: int, quantization: Quantization,
    bandwidth: float, flops: float, link: float, tokens: int, context: int, sequences: int,
) -> None:  # fmt: skip
    shape = SHAPES[name]
    if shape.stored_quantization != "None":
        quantization = "None"
    slow = prior(shape, hardware, degree, quantization)
    fast = prior(shape, faster(hardware, bandwidth, flops, link), degree, quantization)
    assert prefill_seconds(fast, tokens, context) <= prefill_seconds(slow, tokens, context) * (1 + 1e-9)
    assert step_seconds(fast, sequences, sequences * context) <= step_seconds(slow, sequences, sequences * context) * (
        1 + 1e-9
    )
