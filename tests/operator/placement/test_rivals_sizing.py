"""Sizing bugs of other projects, each as a story that holds here (sources: placement.md, rivals.md of the field)."""

from __future__ import annotations

import math

import pytest
from tandem_operator.performance.hardware import GIB
from tandem_operator.performance.memory import memory
from tandem_operator.performance.shape import StateLayers
from tandem_operator.placement.choose import Choice, Refusal, choose
from tandem_operator.placement.problem import Load, Objective, Offer, Wish

from tests.operator.placement.fleets import (
    A100,
    B200,
    CLASSES,
    DEEPSEEK_V3,
    GPT_OSS_120B,
    H100,
    H200,
    L4,
    L40S,
    LLAMA_8B,
    LLAMA_70B,
    change,
    dense,
    offer,
    problem,
)


def chosen(result: Choice | Refusal) -> Choice:
    assert isinstance(result, Choice), result.reason
    return result


def test_kaito_divides_kv_by_the_gpu_count_even_for_mla_we_do_not() -> None:
    one, eight = (memory(DEEPSEEK_V3, H200, size, context_tokens=32_768) for size in (1, 8))
    assert one.required_kv_bytes == eight.required_kv_bytes == 61 * 576 * 2 * 32_768
    pool = chosen(choose(problem(DEEPSEEK_V3, H200))).decode
    room = pool.memory.kv_room_bytes / (61 * 576 * 2 * (2048 + 256))
    assert pool.candidate.tensor_parallel == 8
    assert pool.sequences <= room, "batches are sized by the latent that every device holds, not by an eighth of it"


def test_kaito_divides_kv_by_tensor_parallel_beyond_the_kv_heads_we_do_not() -> None:
    few_heads = dense("two-kv-heads", 48, 4096, 32, 2, 30)
    two, eight = (memory(few_heads, H100, size, context_tokens=8192) for size in (2, 8))
    assert two.required_kv_bytes == eight.required_kv_bytes, "one whole head is the least that a device holds"


def test_kaito_2302_gpt_oss_120b_takes_one_device_not_two_nodes() -> None:
    result = chosen(choose(problem(GPT_OSS_120B, H100, prefill=Wish(gpus=1), decode=Wish(gpus=1))))
    assert result.prefill.gpus == result.decode.gpus == 1
    free = chosen(choose(problem(GPT_OSS_120B, H100)))
    assert max(free.prefill.gpus, free.decode.gpus) <= 2, "and never more than one node"
    assert result.decode.memory.weights_bytes < 70e9, "MXFP4 as stored, not 16 bit"


def test_kaito_2302_state_of_hybrid_layers_counts_against_memory() -> None:
    plain = dense("hybrid", 40, 4096, 32, 8, 30)
    hybrid = change(plain, state=(StateLayers(layers=36, heads=128, state_bytes=64 << 20),))
    more = (
        memory(hybrid, H100, 1, context_tokens=8192).needed_bytes
        - memory(plain, H100, 1, context_tokens=8192).needed_bytes
    )
    assert more == 36 * (64 << 20)
    loose = {"objective": Objective(ttft_s=10, tpot_s=0.2)}
    batches = [chosen(choose(problem(shape, H100, **loose))).decode.sequences for shape in (plain, hybrid)]
    assert batches[1] < batches[0], "else it runs out of memory under load"


@pytest.mark.parametrize("model", [LLAMA_8B, LLAMA_70B])
def test_prefill_is_never_tensor_parallel_across_pcie(model) -> None:  # type: ignore[no-untyped-def]
    bridge = change(L40S.interconnect, domain_devices=8)
    for hardware in (L40S, change(L40S, interconnect=bridge), L4):
        for price in (0.01, 1.0):
            result = choose(
                problem(model, change(hardware, price_per_hour=price), H100, objective=Objective(ttft_s=30))
            )
            if isinstance(result, Choice) and result.prefill.candidate.hardware_class == hardware.name:
                assert result.prefill.candidate.tensor_parallel == 1


def test_a_user_who_asks_for_tensor_parallel_prefill_across_pcie_gets_it() -> None:
    wish = Wish(hardware_classes=("l40s",), tensor_parallel=4)
    pool = chosen(choose(problem(LLAMA_70B, L40S, H100, prefill=wish, objective=Objective(ttft_s=30)))).prefill
    assert pool.candidate.tensor_parallel == 4


def test_the_naive_rule_of_aic_would_take_more_devices_than_needed() -> None:
    """tp = 2^ceil(log2(1.5 weights / vram)): 70B in FP8 on H200 needs one device; the rule says two... and two are
    too few for 8 x 131k tokens of KV of an MHA model, of which it knows nothing."""
    naive = 2 ** math.ceil(math.log2(1.5 * LLAMA_70B.weight_bytes / 2 / H200.memory_bytes))
    one = memory(LLAMA_70B, H200, 1, "FP8", context_tokens=16_384)
    assert naive == 1
    assert one.fits
    mha = dense("mha-34b", 60, 7168, 56, 56, 34, context=131_072)
    naive = 2 ** math.ceil(math.log2(1.5 * mha.weight_bytes / H200.memory_bytes))
    assert naive == 1
    assert not memory(mha, H200, naive, context_tokens=131_072).fits
    assert chosen(choose(problem(mha, H200, max_context_tokens=131_072))).decode.gpus > naive


def test_one_sku_for_both_roles_is_no_law_compute_and_bandwidth_are_bought_apart() -> None:
    """Dynamo plans one SKU per request."""
    result = chosen(choose(problem(LLAMA_70B, *CLASSES, load=Load(requests_per_s=10))))
    assert result.prefill.candidate.hardware_class != result.decode.candidate.hardware_class
    for hardware in CLASSES:
        alone = choose(problem(LLAMA_70B, hardware, load=Load(requests_per_s=10)))
        assert isinstance(alone, Refusal) or alone.cost >= result.cost


def test_kaito_looks_at_the_first_node_only_we_at_the_largest_that_has_room() -> None:
    mixed = Offer(hardware=H100, free=((1, 20), (8, 2)), largest_node=8)
    result = chosen(choose(change(problem(LLAMA_70B, H100), offers=(mixed,))))
    assert result.decode.gpus >= 4
    assert result.short == 0


def test_dynamo_8469_a_class_that_nobody_has_heard_of_is_planned_like_any_other() -> None:
    unheard = change(H100, name="acme-9000")
    assert chosen(choose(problem(LLAMA_8B, unheard))).prefill.candidate.hardware_class == "acme-9000"


def test_a_class_of_unknown_speed_stays_but_comes_last() -> None:
    dark = change(B200, name="dark", bandwidth_bytes_per_s=0.0, price_per_hour=0.001)
    both = chosen(choose(problem(LLAMA_8B, dark, H100)))
    assert both.prefill.candidate.hardware_class == both.decode.candidate.hardware_class == "h100-sxm"
    assert "speed is not known" in next(item.reason for item in both.decode.rejected if item.hardware_class == "dark")
    alone = chosen(choose(problem(LLAMA_8B, dark)))
    assert alone.prefill.coefficients is None
    assert "speed of dark is not known" in alone.prefill.why


def test_a_replica_that_fits_no_single_node_is_refused_with_the_arithmetic() -> None:
    result = choose(problem(DEEPSEEK_V3, H100))
    assert isinstance(result, Refusal)
    assert "a replica needs 702 GiB (weights 654 + KV 9 + overhead 40) but 8 x h100-sxm offer 573 GiB" in result.reason
    asked = choose(change(problem(LLAMA_8B, H100), prefill=Wish(gpus=16)))
    assert isinstance(asked, Refusal)
    assert "a replica of 16 devices fits no single node (the largest has 8)" in asked.reason
    assert "remove prefill.gpus" in asked.reason


def test_an_impossible_objective_is_refused_with_the_arithmetic() -> None:
    result = choose(problem(LLAMA_70B, *CLASSES, objective=Objective(ttft_s=0.01)))
    assert isinstance(result, Refusal)
    assert "TTFT" in result.reason
    assert "is above 8 ms (80% of the 10 ms objective)" in result.reason


def test_kv_on_a_slow_link_is_priced_in_and_refused_when_it_eats_the_ttft() -> None:
    """llm-d#2370, dynamo#1314: KV on plain TCP works, and nobody says at what price."""
    slow = change(H100, network_bytes_per_s=0.02e9)
    load = Load(requests_per_s=1, prompt_tokens=8192)
    result = choose(problem(LLAMA_70B, slow, load=load))
    assert isinstance(result, Refusal)
    assert "moving the KV pages of 8,192 tokens takes" in result.reason
    fast, medium = (
        chosen(choose(problem(LLAMA_70B, change(H100, network_bytes_per_s=rate), load=Load(prompt_tokens=8192))))
        for rate in (50e9, 1.6e9)
    )
    assert fast.link.seconds < 0.06 < medium.link.seconds
    assert fast.prefill.rate > medium.prefill.rate


def test_one_nvlink_domain_over_many_nodes_carries_kv_for_next_to_nothing() -> None:
    rack = change(B200, name="rack", interconnect=change(B200.interconnect, domain_devices=72), network_bytes_per_s=1e9)
    result = chosen(choose(problem(LLAMA_70B, rack)))
    assert result.link.kind == "scale-up domain"
    assert result.link.seconds < 0.005


def test_what_the_user_fixed_wins_over_what_is_cheaper() -> None:
    wish = Wish(hardware_classes=("b200-sxm",), gpus=4, tensor_parallel=2, replicas=3)
    free = chosen(choose(problem(LLAMA_70B, *CLASSES)))
    pool = chosen(choose(problem(LLAMA_70B, *CLASSES, decode=wish))).decode
    assert pool.candidate.hardware_class == "b200-sxm" != free.decode.candidate.hardware_class
    assert (pool.candidate.tensor_parallel, pool.candidate.pipeline_parallel, pool.gpus, pool.replicas) == (2, 2, 4, 3)


def test_auto_never_takes_four_bits_but_a_user_may() -> None:
    auto = chosen(choose(problem(LLAMA_70B, L40S, objective=Objective(ttft_s=5, tpot_s=0.2), quantization="Auto")))
    assert auto.decode.candidate.quantization in ("FP8", "Int8Dynamic", "Int8")
    four = chosen(choose(problem(LLAMA_70B, L40S, objective=Objective(ttft_s=5, tpot_s=0.2), quantization="Int4")))
    assert four.decode.candidate.quantization == four.prefill.candidate.quantization == "Int4"
    assert four.decode.gpus <= auto.decode.gpus


def test_fp8_weights_are_not_sent_where_no_fp8_is() -> None:
    result = choose(problem(LLAMA_8B, A100, quantization="FP8"))
    assert isinstance(result, Refusal)
    assert "weights in FP8 do not run on it" in result.reason


def test_full_nodes_make_the_next_class_win_and_fragments_do_not_count_as_room() -> None:
    """11 free devices in pieces of 1 to 3 take no replica of 4."""
    fragments = Offer(hardware=A100, free=((3, 3), (2, 1)), largest_node=8)
    fixed = Wish(tensor_parallel=4)
    task = change(problem(LLAMA_70B, A100, prefill=fixed, decode=fixed), offers=(fragments, offer(H100)))
    result = chosen(choose(task))
    assert result.decode.candidate.hardware_class == "h100-sxm"
    reason = next(item.reason for item in result.decode.rejected if item.hardware_class == "a100-sxm4-80gb")
    assert "find no room now" in reason
    waits = chosen(choose(change(task, offers=(fragments,))))
    assert waits.short == 2, "nothing else is there: the pods wait for capacity"


def test_nodes_that_went_move_one_pool_and_leave_the_other_alone() -> None:
    task = problem(LLAMA_70B, *CLASSES, load=Load(requests_per_s=5))
    before = chosen(choose(task))
    gone = before.prefill.candidate.hardware_class
    less = change(task, offers=tuple(one for one in task.offers if one.name != gone))
    after = chosen(choose(less, before.current))
    assert after.prefill.candidate.hardware_class != gone
    assert after.decode.candidate == before.decode.candidate
    assert not after.kept


def test_memory_decides_at_plus_and_minus_one_percent() -> None:
    need = memory(LLAMA_70B, H200, 1, "FP8", context_tokens=16_384).needed_bytes / H200.constants.utilization
    for factor, fits in ((0.99, False), (1.01, True)):
        hardware = change(H200, memory_bytes=int(need * factor))
        fixed = Wish(gpus=1)
        result = choose(problem(LLAMA_70B, hardware, quantization="FP8", prefill=fixed, decode=fixed,
                                objective=Objective(ttft_s=20, tpot_s=1.0)))  # fmt: skip
        assert isinstance(result, Choice) == fits
    assert need > 70 * GIB


def test_a_class_without_a_price_wins_on_its_merits_never_for_want_of_one() -> None:
    free = change(B200, name="unpriced", price_per_hour=None)
    load = Load(requests_per_s=5)
    with_it = chosen(choose(problem(LLAMA_70B, A100, H100, H200, L40S, free, load=load)))
    without = chosen(choose(problem(LLAMA_70B, A100, H100, H200, L40S, load=load)))
    assert with_it.cost_unit == "price"
    assert with_it.cost <= without.cost
    pools = (with_it.prefill, with_it.decode)
    assert all((pool.price_per_hour is None) == (pool.candidate.hardware_class == "unpriced") for pool in pools)
    alone = chosen(choose(problem(LLAMA_70B, free, load=load)))
    assert (alone.cost_unit, alone.price_per_hour) == ("devices", None)
    small = chosen(
        choose(problem(LLAMA_8B, L4, L40S, free, load=Load(requests_per_s=0.5), objective=Objective(tpot_s=0.1)))
    )
    assert "unpriced" not in (small.prefill.candidate.hardware_class, small.decode.candidate.hardware_class)
