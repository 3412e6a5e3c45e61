"""What is refused at the door, what is only doubted, and that the arithmetic is told."""

from __future__ import annotations

import pytest
from tandem_operator.placement.choose import Choice, choose
from tandem_operator.placement.problem import Load, Objective, Problem, Wish
from tandem_operator.placement.verdict import judge

from tests.operator.placement.fleets import A100, CLASSES, H100, L4, L40S, LLAMA_8B, LLAMA_70B, change, offer, problem

RELAXED = Objective(ttft_s=5.0, tpot_s=0.1)
IMPOSSIBLE = Objective(ttft_s=0.001, tpot_s=0.0001)


def tpot_of(posed: Problem) -> float:
    """Of a single sequence: what no objective can be below."""
    best = choose(change(posed, objective=Objective(ttft_s=1e6, tpot_s=1e6)))
    assert isinstance(best, Choice)
    assert best.decode.coefficients
    context = round(posed.load.prompt_tokens + posed.load.output_tokens / 2)
    return best.decode.coefficients.step_seconds(1, context)


def test_what_fits_with_room_is_taken_without_a_word() -> None:
    verdict = judge(problem(LLAMA_8B, H100, objective=RELAXED))
    assert (verdict.refusal, verdict.warnings) == ("", ())


def test_an_impossible_objective_is_refused_with_the_arithmetic_of_the_nearest_class() -> None:
    refusal = judge(problem(LLAMA_70B, *CLASSES, objective=IMPOSSIBLE)).refusal
    assert "ms" in refusal
    assert "objective" in refusal
    assert "relax the objective" in refusal


def test_a_model_too_large_for_every_class_is_refused_in_gibibytes() -> None:
    refusal = judge(problem(LLAMA_70B, L4, L40S, prefill=Wish(gpus=1), decode=Wish(gpus=1))).refusal
    assert "a replica needs" in refusal
    assert "weights 13" in refusal  # 70.55e9 parameters in bf16, with their growth, are 134 GiB
    assert "\n  decode, " in refusal


def test_the_other_role_and_other_classes_are_told_too() -> None:
    lines = judge(problem(LLAMA_70B, *CLASSES, objective=IMPOSSIBLE)).refusal.splitlines()
    assert len(lines) > 4
    assert any(line.startswith("  decode, ") for line in lines)


def test_between_the_share_that_is_kept_to_and_the_objective_is_doubt() -> None:
    """Predictions err by 5 to 25 %: what is 10 % under the objective may hold, and nobody forbids to try."""
    one = Wish(gpus=1)
    posed = problem(LLAMA_8B, H100, objective=RELAXED, prefill=one, decode=one)
    step = tpot_of(posed)
    near = judge(change(posed, objective=Objective(ttft_s=5.0, tpot_s=step / 0.9)))
    assert near.refusal == ""
    assert near.warnings[0].startswith("doubtful")
    assert "TPOT" in near.warnings[0]
    assert judge(change(posed, objective=Objective(ttft_s=5.0, tpot_s=step * 0.9))).refusal


def test_named_classes_without_a_node_may_come_later() -> None:
    posed = problem(LLAMA_8B, H100, objective=RELAXED, prefill=Wish(hardware_classes=("h100-sxm",)))
    absent = change(posed, offers=(change(offer(H100, 0), largest_node=0), offer(A100)))
    verdict = judge(absent)
    assert verdict.refusal == ""
    assert "until there are nodes" in verdict.warnings[0]
    assert "h100-sxm" in verdict.warnings[0]


def test_a_cluster_that_has_no_devices_yet_refuses_nothing_that_some_class_could_do() -> None:
    empty = tuple(change(offer(one, 0), largest_node=0) for one in (H100, L4))
    posed = problem(LLAMA_8B, H100, objective=RELAXED)
    assert judge(change(posed, offers=empty)).refusal == ""
    assert judge(change(posed, offers=empty, objective=IMPOSSIBLE)).refusal


def test_classes_that_nobody_named_do_not_save_what_the_cluster_cannot_do() -> None:
    offers = (offer(L4), change(offer(H100, 0), largest_node=0))
    posed = change(problem(LLAMA_70B, L4, objective=RELAXED), offers=offers)
    assert judge(posed).refusal


def test_a_class_that_does_not_exist_is_refused_with_those_that_do() -> None:
    refusal = judge(problem(LLAMA_8B, H100, decode=Wish(hardware_classes=("h100-sxn",)))).refusal
    assert "h100-sxn" in refusal
    assert "there are: h100-sxm" in refusal


def test_pods_that_will_wait_are_foretold() -> None:
    posed = problem(LLAMA_8B, H100, objective=RELAXED, nodes=1, prefill=Wish(replicas=9), decode=Wish(replicas=2))
    (warning,) = judge(posed).warnings
    assert warning.startswith("3 replicas find no room now (9 x 1 h100-sxm for prefill, 2 x 1 h100-sxm for decode)")


def test_figures_from_memory_and_unknown_speed_are_said() -> None:
    unverified = judge(problem(LLAMA_8B, change(H100, verified=False), objective=RELAXED)).warnings
    assert len(unverified) == 2
    assert all("not verified" in text for text in unverified)
    slow = change(H100, bandwidth_bytes_per_s=0.0)
    unknown = judge(problem(LLAMA_8B, slow, objective=RELAXED)).warnings
    assert any("speed of h100-sxm is not known" in text for text in unknown)


def test_tensor_parallel_prefill_across_pcie_is_done_when_asked_and_doubted() -> None:
    wish = Wish(tensor_parallel=2)
    posed = problem(
        LLAMA_8B,
        L40S,
        objective=Objective(ttft_s=60, tpot_s=1),
        prefill=wish,
        decode=wish,
        load=Load(prompt_tokens=512),
    )
    warnings = judge(posed).warnings
    assert any("PCIe" in text and "prefill.tensorParallel says so" in text for text in warnings)


@pytest.mark.parametrize("objective", [RELAXED, IMPOSSIBLE, Objective()])
def test_the_door_never_refuses_what_the_reconcile_loop_would_place(objective: Objective) -> None:
    for shape in (LLAMA_8B, LLAMA_70B):
        posed = problem(shape, *CLASSES, objective=objective)
        if isinstance(choose(posed), Choice):
            assert judge(posed).refusal == ""
