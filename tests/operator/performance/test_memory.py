"""Memory of a replica against a table worked out apart from the code, and the laws that any model of it must keep."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_operator.performance.config_reader import read_shape
from tandem_operator.performance.hardware import GIB, Constants, Flops, Hardware, Interconnect
from tandem_operator.performance.memory import memory
from tandem_operator.performance.shape import AttentionLayers, ModelShape
from tandem_operator.placement.catalogue import bundled, bundled_hardware

from tests.operator.performance.devices import H100
from tests.operator.performance.public_models import PUBLIC_MODELS

SHAPES: Final = {name: read_shape(model.config, name=name) for name, model in PUBLIC_MODELS.items()}
DEGREES: Final = (1, 2, 4, 8)
CONTEXT: Final = 8192

NEEDED_GIB: Final = {
    # By hand from published counts, GiB of one device at TP 1, 2, 4, 8, one sequence of 8192 tokens in steps of 8192:
    # 1.02 x bytes / TP + 2 x 8192 x hidden x (11, 6.5, 5, 5), twice for MoE + (0, 342, 392, 392) MiB + 3.5 GiB + KV.
    # Llama-3.1-8B, TP 1: 1.02 x 16,060,522,496 + 738,197,504 + 3.5 GiB + 131,072 x 8192 = 21.95e9 = 20.44 GiB.
    "Llama-3.1-8B": (20.44, 12.37, 8.26, 6.23),
    "Llama-3.1-70B": (141.42, 72.92, 38.64, 21.58),
    "Llama-3.1-405B": (781.27, 392.97, 198.89, 102.01),
    "Qwen2.5-0.5B": (4.68, 4.44, 4.23, 4.12),
    "Qwen2.5-7B": (19.01, 11.64, 7.88, 6.07),
    "Qwen3-32B": (68.60, 36.46, 20.33, 12.30),
    "Qwen3-235B-A22B": (453.00, 228.71, 116.54, 60.71),
    "DeepSeek-V3": (645.74, 325.44, 165.34, 85.43),
    "Mixtral-8x7B": (94.61, 49.51, 26.94, 15.72),
    "Mistral-7B-v0.1": (18.45, 11.37, 7.76, 5.98),
    "Gemma-2-9B": (23.63, 13.95, 9.04, 6.60),
    "Gemma-3-27B": (56.75, 30.54, 17.38, 10.84),
    "gpt-oss-120b": (66.74, 35.54, 19.89, 12.11),
    "Phi-3-mini": (12.02, 8.14, 6.12, 5.12),
    "Phi-4": (33.77, 19.05, 11.71, 8.07),
    "Falcon-7B": (17.48, 10.92, 7.58, 5.94),
    "Jamba-v0.1": (102.99, 53.71, 29.04, 16.77),
    "Nemotron-H-8B": (19.80, 12.05, 8.10, 6.15),
    "Qwen3-Next-80B-A3B": (155.82, 80.06, 42.15, 23.22),
}

SMALLEST_DEGREE: Final = {
    # GiB of one device; for each model above, in order, the least TP of 1, 2, 4, 8 that 0.90 of it is enough for.
    "t4": (15.00, "2 - - 1 2 8 - - - 2 4 8 8 1 4 2 - 2 -"),
    "v100-sxm2-32gb": (29.80, "1 8 - 1 1 4 - - 8 1 1 4 4 1 2 1 8 1 8"),
    "a10": (22.35, "2 - - 1 1 8 - - 8 1 2 4 4 1 2 1 8 1 -"),
    "a10g": (22.35, "2 - - 1 1 8 - - 8 1 2 4 4 1 2 1 8 1 -"),
    "l4": (22.35, "2 - - 1 1 8 - - 8 1 2 4 4 1 2 1 8 1 -"),
    "l40s": (44.99, "1 4 - 1 1 2 - - 4 1 1 2 2 1 1 1 4 1 8"),
    "rtx-4090": (22.35, "2 - - 1 1 8 - - 8 1 2 4 4 1 2 1 8 1 -"),
    "rtx-5090": (29.80, "1 8 - 1 1 4 - - 8 1 1 4 4 1 2 1 8 1 8"),
    "rtx-6000-ada": (44.70, "1 4 - 1 1 2 - - 4 1 1 2 2 1 1 1 4 1 8"),
    "rtx-pro-6000-server": (95.59, "1 2 - 1 1 1 8 8 2 1 1 1 1 1 1 1 2 1 2"),
    "a100-sxm4-40gb": (40.00, "1 8 - 1 1 4 - - 4 1 1 2 2 1 1 1 4 1 8"),
    "a100-sxm4-80gb": (80.00, "1 4 - 1 1 1 8 - 2 1 1 1 1 1 1 1 2 1 4"),
    "a100-pcie-80gb": (80.00, "1 4 - 1 1 1 8 - 2 1 1 1 1 1 1 1 2 1 4"),
    "h100-pcie": (79.65, "1 4 - 1 1 1 8 - 2 1 1 1 1 1 1 1 2 1 4"),
    "h100-sxm": (79.65, "1 4 - 1 1 1 8 - 2 1 1 1 1 1 1 1 2 1 4"),
    "h100-nvl": (93.58, "1 2 - 1 1 1 8 - 2 1 1 1 1 1 1 1 2 1 2"),
    "h200-sxm": (140.40, "1 2 8 1 1 1 4 8 1 1 1 1 1 1 1 1 1 1 2"),
    "gh200": (95.58, "1 2 - 1 1 1 8 8 2 1 1 1 1 1 1 1 2 1 2"),
    "b200-sxm": (167.64, "1 1 8 1 1 1 4 8 1 1 1 1 1 1 1 1 1 1 2"),
    "b300-sxm": (268.59, "1 1 4 1 1 1 2 4 1 1 1 1 1 1 1 1 1 1 1"),
    "gb200": (185.03, "1 1 8 1 1 1 4 4 1 1 1 1 1 1 1 1 1 1 1"),
    "gb300": (277.55, "1 1 4 1 1 1 2 4 1 1 1 1 1 1 1 1 1 1 1"),
    "mi210": (59.60, "1 4 - 1 1 2 - - 2 1 1 2 2 1 1 1 4 1 4"),
    "mi250x": (59.60, "1 4 - 1 1 2 - - 2 1 1 2 2 1 1 1 4 1 4"),
    "mi300x": (178.81, "1 1 8 1 1 1 4 8 1 1 1 1 1 1 1 1 1 1 1"),
    "mi325x": (238.42, "1 1 4 1 1 1 4 4 1 1 1 1 1 1 1 1 1 1 1"),
    "mi355x": (268.22, "1 1 4 1 1 1 2 4 1 1 1 1 1 1 1 1 1 1 1"),
    "gaudi2": (89.41, "1 2 - 1 1 1 8 - 2 1 1 1 1 1 1 1 2 1 2"),
    "gaudi3": (119.21, "1 2 8 1 1 1 8 8 1 1 1 1 1 1 1 1 1 1 2"),
    "tpu-v5e": (14.90, "2 - - 1 2 8 - - - 2 4 8 8 1 4 2 - 2 -"),
    "tpu-v5p": (88.48, "1 2 - 1 1 1 8 - 2 1 1 1 1 1 1 1 2 1 4"),
    "tpu-v6e": (29.80, "1 8 - 1 1 4 - - 8 1 1 4 4 1 2 1 8 1 8"),
    "tpu-v7x": (178.81, "1 1 8 1 1 1 4 8 1 1 1 1 1 1 1 1 1 1 1"),
    "inferentia2": (32.00, "1 8 - 1 1 4 - - 4 1 1 4 4 1 2 1 8 1 8"),
    "trainium2": (96.00, "1 2 - 1 1 1 8 8 2 1 1 1 1 1 1 1 2 1 2"),
    "trainium3": (144.00, "1 2 8 1 1 1 4 8 1 1 1 1 1 1 1 1 1 1 2"),
}


def device(gib: float, name: str = "x") -> Hardware:
    return Hardware(
        name=name,
        memory_bytes=round(gib * GIB),
        bandwidth_bytes_per_s=1e12,
        flops=Flops(bf16=1e14),
        interconnect=Interconnect(kind="NVLink", bytes_per_s=1e11, domain_devices=8),
    )


@pytest.mark.parametrize("name", list(NEEDED_GIB))
def test_what_a_replica_needs_is_what_was_worked_out_by_hand(name: str) -> None:
    plans = [memory(SHAPES[name], device(80), degree, context_tokens=CONTEXT) for degree in DEGREES]
    assert [plan.needed_bytes / GIB for plan in plans] == pytest.approx(NEEDED_GIB[name], rel=6e-4, abs=0.006)


@pytest.mark.parametrize("name", list(SMALLEST_DEGREE))
def test_every_model_fits_each_class_as_the_table_says(name: str) -> None:
    gib, degrees = SMALLEST_DEGREE[name]
    found = []
    for shape in SHAPES.values():
        fits = [d for d in DEGREES if memory(shape, device(gib), d, context_tokens=CONTEXT).fits]
        found.append(str(fits[0]) if fits else "-")
        assert fits == [d for d in DEGREES if fits and d >= fits[0]], f"{shape.name}: more devices never fit less"
    assert found == degrees.split()


def test_the_table_has_every_bundled_class_with_its_memory() -> None:
    told = {name: bundled_hardware(name) for name in bundled()}
    assert {name: round(hardware.memory_bytes / GIB, 2) for name, hardware in told.items()} == {
        name: gib for name, (gib, _) in SMALLEST_DEGREE.items()
    }
    assert all(h.constants.utilization == 0.90 and h.constants.overhead_bytes == 3.5 * GIB for h in told.values())


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("degree", DEGREES)
def test_the_decision_turns_within_one_percent(name: str, degree: int) -> None:
    needed = memory(SHAPES[name], device(80), degree, context_tokens=CONTEXT).needed_bytes / GIB
    enough, short = device(needed / 0.90 * 1.01), device(needed / 0.90 * 0.99)
    assert memory(SHAPES[name], enough, degree, context_tokens=CONTEXT).fits
    plan = memory(SHAPES[name], short, degree, context_tokens=CONTEXT)
    assert not plan.fits
    assert -plan.spare_bytes / GIB == pytest.approx(0.01 * needed, rel=0.01)


def test_every_term_is_told_and_they_add_up() -> None:
    plan = memory(SHAPES["Llama-3.1-70B"], H100, 4, sequences=4, context_tokens=CONTEXT)
    terms = plan.weights_bytes + plan.activations_bytes + plan.collective_bytes + plan.overhead_bytes
    assert terms == plan.fixed_bytes == plan.needed_bytes - plan.required_kv_bytes
    assert plan.required_kv_bytes == 4 * CONTEXT * 2 * 80 * 2 * 128 * 2
    assert plan.kv_room_bytes == plan.budget_bytes - plan.fixed_bytes
    assert plan.kv_tokens == int(plan.kv_room_bytes / (2 * 80 * 2 * 128 * 2))
    assert plan.explain() == (
        "weights 33.5 + activations 0.6 + collectives 0.4 + overhead 3.5 + KV of 4 x 8192 tokens 2.5 = 40.5"
        " of 0.9 x 79.6 = 71.7 GiB: 31.2 GiB spare"
    )
    assert memory(SHAPES["Llama-3.1-70B"], H100).explain().endswith("GiB short")


def test_a_latent_is_not_divided_by_tensor_parallelism_and_gqa_shards_are_whole_heads() -> None:
    latent = [memory(SHAPES["DeepSeek-V3"], H100, d, context_tokens=CONTEXT).required_kv_bytes for d in (1, 8, 16)]
    assert latent == [61 * 576 * 2 * CONTEXT] * 3
    few_heads = [memory(SHAPES["Qwen2.5-7B"], H100, d, context_tokens=CONTEXT).required_kv_bytes for d in (1, 3, 4, 8)]
    assert [kv / (2 * 28 * 128 * 2 * CONTEXT) for kv in few_heads] == [4, 2, 1, 1]


def test_settings_of_the_class_count() -> None:
    shape = SHAPES["Llama-3.1-8B"]
    kaito = Constants(utilization=0.84, overhead_bytes=int(2.3 * GIB), weight_growth=1.0)
    plan = memory(shape, msgspec.structs.replace(H100, constants=kaito), context_tokens=1)
    assert plan.budget_bytes == H100.memory_bytes * 0.84
    assert plan.overhead_bytes == int(2.3 * GIB)
    assert plan.weights_bytes == shape.weight_bytes


def test_stages_of_a_pipeline_hold_whole_layers() -> None:
    shape = SHAPES["Llama-3.1-405B"]
    one, three = memory(shape, H100, 8, context_tokens=CONTEXT), memory(shape, H100, 8, pipeline_parallel=4)
    assert three.weights_bytes == pytest.approx(one.weights_bytes * 32 / 126)  # 126 layers: the fullest of 4 has 32
    with pytest.raises(ValueError, match="pipeline_parallel 0"):
        memory(shape, H100, 8, pipeline_parallel=0)


def test_without_a_context_the_model_s_own_maximum_must_fit() -> None:
    plan = memory(SHAPES["Llama-3.1-8B"], H100)
    assert plan.context_tokens == 131072
    assert plan.required_kv_bytes == 131072 * 131072


def test_full_windows_leave_room_for_more_tokens() -> None:
    short, long = (memory(SHAPES["Gemma-3-27B"], H100, 2, context_tokens=n) for n in (1024, 32768))
    assert long.kv_tokens > 4 * short.kv_tokens


shapes = st.builds(
    lambda layers, heads, kv, dim, latent, experts: ModelShape(
        layers=layers, hidden=heads * dim, heads=heads, head_dim=dim, vocabulary=32000,
        parameters=layers * heads * heads * dim * dim * 12, active_parameters=layers * heads * heads * dim * dim * 12,
        linear_parameters=layers * heads * heads * dim * dim * 12,
        active_linear_parameters=layers * heads * heads * dim * dim * 12,
        experts=experts, attention=(AttentionLayers(layers=layers, kv_heads=min(kv, heads), key_dim=dim, value_dim=dim,
                                                    latent_dim=latent),),
        max_context_tokens=32768, weight_bytes=layers * heads * heads * dim * dim * 24,
    ),
    st.integers(1, 128), st.integers(1, 128), st.integers(1, 128), st.sampled_from((64, 96, 128, 256)),
    st.sampled_from((0, 0, 576)), st.sampled_from((0, 0, 64)),
)  # fmt: skip


@given(shapes, st.floats(1, 300), st.floats(0, 300), st.sampled_from((1, 2, 4, 8, 16)), st.integers(1, 32768))
def test_more_memory_never_makes_a_fit_fail(shape: ModelShape, gib: float, more: float, degree: int, n: int) -> None:
    small, large = (
        memory(shape, device(gib), degree, context_tokens=n),
        memory(shape, device(gib + more), degree, context_tokens=n),
    )
    assert large.fits or not small.fits
    assert large.kv_tokens >= small.kv_tokens


@given(shapes, st.floats(1, 300), st.integers(1, 32768), st.integers(1, 64))
def test_asking_for_more_never_needs_less(shape: ModelShape, gib: float, n: int, sequences: int) -> None:
    plan = memory(shape, device(gib), 2, context_tokens=n, sequences=sequences)
    assert memory(shape, device(gib), 2, context_tokens=n, sequences=sequences + 1).needed_bytes >= plan.needed_bytes
    assert memory(shape, device(gib), 2, context_tokens=n + 1, sequences=sequences).needed_bytes >= plan.needed_bytes
    assert memory(shape, device(gib), 2, context_tokens=n, kv_dtype_bytes=1).required_kv_bytes <= plan.required_kv_bytes
