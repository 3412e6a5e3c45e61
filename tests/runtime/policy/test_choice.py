"""The choice of a pair of pods from snapshots."""

from __future__ import annotations

import time
from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts.coefficients import Coefficients, read_coefficients
from tandem_runtime.policy.choice import Hold, Pair, choose
from tandem_runtime.policy.fleet import ChoiceLaw, Fleet
from tandem_runtime.policy.pods import HEADROOM_TOKENS, PodSnapshot
from tandem_runtime.policy.waiting import Waiting

H100 = read_coefficients("h100-sxm")
A100 = read_coefficients("a100-sxm4-80gb")


def pod(name: str, role: str = "decode", **facts: object) -> PodSnapshot:
    base = PodSnapshot(name, role, "rev1", f"{name}-1", ready=True, kv_total_tokens=400_000)
    return msgspec.structs.replace(base, **facts)


def prefill(name: str, **facts: object) -> PodSnapshot:
    return pod(name, "prefill", **facts)


def fleet_of(*pods: PodSnapshot, now: float = 0.0, **law: object) -> Fleet:
    fleet = Fleet(ChoiceLaw(**law))  # type: ignore[arg-type]
    for each in pods:
        fleet.put(each, now)
    return fleet


def ask(tokens: int = 1000, **facts: object) -> Waiting:
    return Waiting("r", 0.0, 600.0, tokens, **facts)  # type: ignore[arg-type]


def names(found: Pair | Hold) -> tuple[str, str]:
    assert isinstance(found, Pair), found
    return found.decode.pod, found.prefill.pod if found.prefill else ""


def test_without_knowledge_the_least_loaded_pods_are_taken_and_the_name_decides_between_equals() -> None:
    pods = [
        pod("d1", running=3),
        pod("d0", running=1, kv_used_tokens=500),
        pod("d2", running=1),
        prefill("p1", waiting_tokens=10),
        prefill("p0", waiting_tokens=10),
        prefill("p2", waiting_tokens=11),
    ]
    assert names(choose(fleet_of(*pods), ask(), 0)) == ("d2", "p0")


def test_with_coefficients_the_pair_with_the_earliest_first_token_and_the_fastest_step_is_taken() -> None:
    fleet = fleet_of(
        pod("crowded", coefficients=H100, running=100, kv_used_tokens=100_000),
        pod("free", coefficients=A100, running=1),
        prefill("slow", coefficients=A100, busy_until=0.02),
        prefill("fast", coefficients=H100, busy_until=0.05),
    )
    assert names(choose(fleet, ask(tokens=8000), 0)) == ("free", "fast"), "a long prompt is worth the wait"
    assert names(choose(fleet, ask(tokens=100), 0)) == ("free", "slow"), "a short one is not"


def test_the_prediction_is_queue_prompt_transfer_and_one_step() -> None:
    fleet = fleet_of(pod("d", coefficients=H100), prefill("p", coefficients=H100, busy_until=1.05))
    pair = choose(fleet, ask(tokens=4000), 1.0)
    assert isinstance(pair, Pair)
    link_seconds = H100.link.setup_s + 4000 * H100.kv_bytes_per_token / H100.link.bytes_per_s
    step_seconds = H100.step_seconds(1, 4000)
    assert pair.first_token_seconds == pytest.approx(0.05 + H100.prefill_seconds(4000) + link_seconds + step_seconds)
    assert pair.step_seconds == step_seconds


def test_prefill_is_never_taken_from_another_revision_and_then_decode_does_it_itself() -> None:
    pair = choose(fleet_of(pod("d0"), prefill("p0", revision="rev2")), ask(), 0)
    assert names(pair) == ("d0", "")
    assert isinstance(pair, Pair)
    assert pair.way == "no_prefill"


def test_a_prompt_waits_for_a_prefill_pod_that_is_full_but_not_for_one_that_is_too_small() -> None:
    full = prefill("p0", kv_total_tokens=2000, kv_used_tokens=1500)
    assert choose(fleet_of(pod("d0"), full), ask(tokens=1000), 0) == Hold("prefill_busy")
    assert names(choose(fleet_of(pod("d0"), full), ask(tokens=3000), 0)) == ("d0", "")


def test_a_pod_that_does_both_needs_no_peer() -> None:
    assert names(choose(fleet_of(pod("b0", role="both"), prefill("p0")), ask(), 0)) == ("b0", "")


def test_each_reason_to_hold_is_told_apart() -> None:
    assert choose(fleet_of(prefill("p0"), pod("d0", ready=False), pod("d1", draining=True)), ask(), 0) == Hold("no_pod")
    assert choose(fleet_of(pod("d0", fenced=True)), ask(), 0) == Hold("no_pod")
    full = pod("d0", running=9, kv_used_tokens=399_000)
    assert choose(fleet_of(full), ask(), 0) == Hold("no_room", need_tokens=1000 + HEADROOM_TOKENS)
    assert choose(fleet_of(pod("d0", slots=0)), ask(), 0) == Hold("no_slot")
    assert choose(fleet_of(pod("d0", running=8, max_sequences=8)), ask(), 0) == Hold("no_slot")
    retry = ask(avoid=frozenset({"d0-1"}), avoid_until=1.0)
    assert choose(fleet_of(pod("d0")), retry, 0.5) == Hold("avoided")
    assert names(choose(fleet_of(pod("d0")), retry, 1.0)) == ("d0", "")
    assert choose(fleet_of(pod("d0")), ask(tokens=400_000), 0) == Hold("too_large", 400_000)
    assert isinstance(choose(fleet_of(pod("d0"), pod("d1", kv_total_tokens=0)), ask(tokens=400_000), 0), Pair)
    assert choose(fleet_of(pod("d0"), prefill("p0", busy_until=9.0)), ask(), 0) == Hold("prefill_busy")
    assert choose(fleet_of(pod("d0"), prefill("p0", waiting_tokens=9999)), ask(), 0) == Hold("prefill_busy")


def test_room_is_asked_for_the_expected_answer_too_unless_the_pod_is_empty() -> None:
    entry = ask(tokens=1000, output_tokens=5000)
    assert isinstance(choose(fleet_of(pod("d0", running=1, kv_used_tokens=396_000)), entry, 0), Hold)
    assert isinstance(choose(fleet_of(pod("d0", kv_total_tokens=2000)), entry, 0), Pair)


def test_a_decode_pod_takes_no_request_that_would_slow_all_its_streams_beyond_the_objective() -> None:
    running = next(n for n in range(1000) if H100.step_seconds(n, 1000 * n) > 0.025)
    loaded = pod("d0", coefficients=H100, running=running, kv_used_tokens=running * 1000, kv_total_tokens=1 << 30)
    assert choose(fleet_of(loaded), ask(tpot_seconds=0.025), 0) == Hold("no_slot")
    assert isinstance(choose(fleet_of(loaded), ask(tpot_seconds=0.05), 0), Pair)
    assert choose(fleet_of(loaded, tpot_seconds=0.025), ask(tpot_seconds=0.05), 0) == Hold("no_slot")
    assert isinstance(choose(fleet_of(loaded), ask(tpot_seconds=0.001), 0), Pair), "nobody can meet it: no bound"


def test_packing_fills_the_most_loaded_pod_that_still_meets_the_objective() -> None:
    pods = [pod(f"d{n}", coefficients=H100, running=n * 40, kv_used_tokens=n * 40_000) for n in range(9)]
    pods = [msgspec.structs.replace(each, kv_total_tokens=1 << 30) for each in pods]
    spread = names(choose(fleet_of(*pods, tpot_seconds=0.02), ask(), 0))[0]
    packed = names(choose(fleet_of(*pods, tpot_seconds=0.02, packs=True), ask(), 0))[0]
    assert (spread, packed) == ("d0", "d3")


def test_short_and_cached_prompts_skip_the_prefill_pool_even_when_it_is_busy() -> None:
    fleet = fleet_of(pod("d0"), pod("d1"), prefill("p0", busy_until=9.0), short_tokens=64)
    assert names(choose(fleet, ask(tokens=64), 0)) == ("d0", "")
    assert names(choose(fleet, ask(tokens=1000), 0, {"d1-1": 960})) == ("d1", "")
    assert choose(fleet, ask(tokens=1000), 0, {"d1-1": 900}) == Hold("prefill_busy")


def test_a_prefill_pod_that_holds_the_prefix_is_preferred_as_long_as_it_is_done_first() -> None:
    holder = prefill("holder", coefficients=H100, busy_until=0.09)
    fleet = fleet_of(pod("d", coefficients=H100), holder, prefill("empty", coefficients=H100, busy_until=0.0))
    assert names(choose(fleet, ask(tokens=8000), 0, {"holder-1": 7000})) == ("d", "holder")
    assert names(choose(fleet, ask(tokens=8000), 0, {"holder-1": 300})) == ("d", "empty")


def test_decode_pods_with_slack_take_prompts_only_when_the_prefill_pool_keeps_them_waiting() -> None:
    decode = pod("d", coefficients=H100, running=20, kv_used_tokens=20_000)
    fleet = fleet_of(decode, prefill("p", coefficients=H100, busy_until=5.0))
    entry = ask(objective_at=2.0, tpot_seconds=0.05)
    assert choose(fleet, entry, 0.1) == Hold("prefill_busy")
    pair = choose(fleet, entry, 1.2)
    assert isinstance(pair, Pair)
    assert (names(pair), pair.way) == (("d", ""), "converted")
    tight = ask(objective_at=2.0, tpot_seconds=0.012)
    assert choose(fleet, tight, 1.2) == Hold("prefill_busy"), "its streams would miss their objective"
    long = ask(tokens=60_000, objective_at=2.0, tpot_seconds=0.05)
    assert choose(fleet, long, 1.2) == Hold("prefill_busy"), "it would take longer there"
    frozen = fleet_of(decode, prefill("p", coefficients=H100, busy_until=5.0), convertible=False)
    assert choose(frozen, entry, 1.2) == Hold("prefill_busy")


def test_once_others_had_to_step_back_decode_pods_take_prompts_without_waiting() -> None:
    decode = pod("d", coefficients=H100, running=20, kv_used_tokens=20_000)
    fleet = fleet_of(decode, prefill("p", coefficients=H100, busy_until=5.0))
    entry = ask(objective_at=2.0, tpot_seconds=0.05)
    assert choose(fleet, entry, 0.1) == Hold("prefill_busy")
    assert names(choose(fleet, entry, 0.1, behind=True)) == ("d", "")


def test_late_prompts_do_not_fill_decode_pods_that_others_need_in_time() -> None:
    entry = ask(tokens=8000, objective_at=0.5, tpot_seconds=0.05)
    for used, slots, way in ((190_000, 256, "d"), (199_000, 256, ""), (20_000, 40, "")):
        decode = pod("d", coefficients=H100, running=20, kv_used_tokens=used, max_sequences=slots)
        found = choose(fleet_of(decode, prefill("p", coefficients=H100, busy_until=5.0)), entry, 1.0)
        assert (found == Hold("prefill_busy")) if not way else (names(found) == ("d", "")), (used, slots)


def test_an_open_stream_does_not_wait_for_a_prefill_pod_to_be_nearly_idle() -> None:
    fleet = fleet_of(pod("d", coefficients=H100), prefill("p", coefficients=H100, busy_until=5.0))
    assert names(choose(fleet, ask(streaming=True), 0)) == ("d", "p")


COEFFICIENTS: st.SearchStrategy[Coefficients | None] = st.sampled_from([None, H100, A100])
SNAPSHOTS = st.builds(
    PodSnapshot,
    pod=st.integers(0, 1 << 30).map(str),
    role=st.sampled_from(["prefill", "decode", "both"]),
    revision=st.sampled_from(["rev1", "rev2"]),
    incarnation=st.sampled_from("abcdefgh"),
    ready=st.booleans(),
    draining=st.booleans(),
    running=st.integers(0, 5),
    waiting_tokens=st.integers(0, 5000),
    kv_used_tokens=st.integers(0, 500),
    kv_total_tokens=st.integers(0, 500),
    slots=st.none() | st.integers(0, 3),
    busy_until=st.none() | st.floats(0, 2),
    coefficients=COEFFICIENTS,
)
ASKS = st.builds(
    Waiting,
    id=st.just("r"),
    arrived=st.just(0.0),
    timeout_at=st.just(600.0),
    tokens=st.integers(1, 600),
    objective_at=st.sampled_from([inf, 0.5, 2.0]),
    output_tokens=st.integers(0, 50),
    tpot_seconds=st.sampled_from([inf, 0.05, 0.009]),
    streaming=st.booleans(),
    avoid=st.frozensets(st.sampled_from("abcdefgh")),
    avoid_until=st.sampled_from([0.0, 9.0]),
)


@given(
    st.lists(SNAPSHOTS, max_size=8, unique_by=lambda each: each.incarnation),
    ASKS,
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 700)),
    st.booleans(),
)
def test_a_choice_is_always_allowed_and_does_not_depend_on_the_order_in_which_pods_were_heard_of(
    pods: list[PodSnapshot], entry: Waiting, cached: dict[str, int], packs: bool
) -> None:
    law = ChoiceLaw(short_tokens=20, packs=packs)
    forwards, backwards = Fleet(law), Fleet(law)
    for each in pods:
        forwards.put(each, 1.0)
    for each in [*pods, *pods[::-1]]:
        backwards.put(each, 1.0)
    found = choose(forwards, entry, 1.0, cached)
    assert found == choose(backwards, entry, 1.0, cached)
    avoid = entry.avoided(1.0)
    able = [
        each
        for each in pods
        if each.role != "prefill"
        and each.serves()
        and each.incarnation not in avoid
        and each.has_slot()
        and each.room_tokens() >= entry.tokens + HEADROOM_TOKENS
    ]
    if isinstance(found, Hold):
        assert found.reason in ("no_slot", "no_room", "prefill_busy", "avoided") or not able
        return
    assert found.decode in able
    if found.prefill is None:
        assert found.way != "remote"
        return
    assert found.prefill.role == "prefill"
    assert found.prefill.serves()
    assert found.prefill.revision == found.decode.revision
    assert found.prefill.incarnation not in avoid
    for each in pods:
        backwards.drop(each.incarnation)
    assert choose(backwards, entry, 1.0, cached) == Hold("no_pod")


def test_a_choice_among_sixty_four_pods_of_each_kind_looks_at_few_of_them() -> None:
    fleet = fleet_of(
        *[pod(f"d{n:02}", coefficients=H100, running=n, kv_used_tokens=1000 * n) for n in range(64)],
        *[prefill(f"p{n:02}", coefficients=H100, busy_until=n / 100) for n in range(64)],
        tpot_seconds=0.05,
    )
    entry = ask(objective_at=2.0)
    best_seconds = inf
    for _ in range(20):
        began = time.process_time()
        for _ in range(100):
            choose(fleet, entry, 0.0)
        best_seconds = min(best_seconds, (time.process_time() - began) / 100)
    assert best_seconds < 200e-6, "about 15 us on a quiet machine"
