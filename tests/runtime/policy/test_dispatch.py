"""Queue and choice together: who goes where next, who may pass whom, and that everybody gets served."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.coefficients import read_coefficients
from tandem_runtime.policy.dispatch import next_dispatch, next_look
from tandem_runtime.policy.fleet import ChoiceLaw, Fleet
from tandem_runtime.policy.parked import WOKEN_AT_ONCE
from tandem_runtime.policy.pods import HEADROOM_TOKENS, PodSnapshot
from tandem_runtime.policy.queue import WaitingQueue
from tandem_runtime.policy.waiting import QueueLaw, QueueLimits, Waiting

H100 = read_coefficients("h100-sxm")


def decode(name: str, **facts: object) -> PodSnapshot:
    base = PodSnapshot(name, "decode", "rev1", f"{name}-1", ready=True, kv_total_tokens=10_000)
    return msgspec.structs.replace(base, **facts)


def prefill(name: str, **facts: object) -> PodSnapshot:
    return msgspec.structs.replace(decode(name, kv_total_tokens=1 << 30), role="prefill", **facts)


def fleet_of(*pods: PodSnapshot, **law: object) -> Fleet:
    fleet = Fleet(ChoiceLaw(**law))  # type: ignore[arg-type]
    for pod in pods:
        fleet.put(pod, 0.0)
    return fleet


def queue_of(*sizes: int, **law: object) -> WaitingQueue:
    queue = WaitingQueue(law=QueueLaw(**law))  # type: ignore[arg-type]
    for index, tokens in enumerate(sizes):
        queue.add(Waiting(f"r{index}", index / 1000, 600.0, tokens), 0.0)
    return queue


def send(queue: WaitingQueue, fleet: Fleet, now: float) -> list[tuple[str, str]]:
    """All that can go now; pods keep what they get."""
    sent = []
    while (found := next_dispatch(queue, fleet, now)) is not None:
        if found.pair is None:
            sent.append((found.entry.id, "never"))
            continue
        pod = found.pair.decode
        used = pod.kv_used_tokens + found.entry.tokens + HEADROOM_TOKENS
        fleet.put(msgspec.structs.replace(pod, kv_used_tokens=used, running=pod.running + 1), now)
        if (peer := found.pair.prefill) is not None:
            busy_until = max(now, peer.busy_until or 0.0) + peer.prompt_seconds(found.entry.tokens)
            waiting_tokens = peer.waiting_tokens + (0 if peer.coefficients else found.entry.tokens)
            fleet.put(msgspec.structs.replace(peer, busy_until=busy_until, waiting_tokens=waiting_tokens), now)
        sent.append((found.entry.id, pod.pod))
    return sent


def free(fleet: Fleet, incarnation: str, tokens: int, now: float) -> None:
    """One request of that size has left the pod."""
    pod = fleet.pods[incarnation]
    used = max(0, pod.kv_used_tokens - tokens)
    fleet.put(msgspec.structs.replace(pod, kv_used_tokens=used, running=max(0, pod.running - 1)), now)


def test_a_request_too_large_for_the_moment_lets_smaller_ones_pass() -> None:
    fleet = fleet_of(decode("d", kv_used_tokens=5000, running=1))
    queue = queue_of(8000, 1000, 1000)
    assert send(queue, fleet, 0.0) == [("r1", "d"), ("r2", "d")]
    assert len(queue) == 1
    free(fleet, "d-1", 5000, 0.5)
    assert send(queue, fleet, 0.5) == []
    free(fleet, "d-1", 2000, 0.6)
    assert send(queue, fleet, 0.6) == [("r0", "d")]


def test_after_a_while_the_pod_with_the_most_room_is_kept_for_it_and_the_others_serve_on() -> None:
    fleet = fleet_of(decode("full", kv_used_tokens=9000, running=9), decode("roomy", kv_used_tokens=5000, running=5))
    queue = queue_of(8000, pass_seconds=1.0)
    assert send(queue, fleet, 0.0) == []
    assert next_look(queue, fleet, 0.0, None) == 1.0
    for step in range(10):
        queue.add(Waiting(f"small{step}", 1.0, 600.0, 700), 1.0)
    assert send(queue, fleet, 1.5) == [("small0", "full")]
    for _ in range(5):
        free(fleet, "roomy-1", 1000, 2.0)
    assert send(queue, fleet, 2.0)[0] == ("r0", "roomy")
    free(fleet, "full-1", 3000, 2.5)
    assert ("small3", "full") in send(queue, fleet, 2.5)


def test_the_reservation_ends_with_the_request_or_the_pod_that_it_was_for() -> None:
    fleet = fleet_of(decode("d", kv_used_tokens=5000, running=1), decode("e", kv_used_tokens=6000, running=1))
    queue = queue_of(8000)
    assert send(queue, fleet, 0.0) == []
    assert send(queue, fleet, 1.5) == []
    assert fleet.reserved is not None
    assert fleet.reserved[:2] == ("d-1", "r0")
    fleet.drop("d-1")
    assert send(queue, fleet, 1.6) == []
    assert fleet.reserved is not None
    assert fleet.reserved[:2] == ("e-1", "r0")
    queue.remove("r0")
    queue.add(Waiting("small", 2.0, 600.0, 100), 2.0)
    assert send(queue, fleet, 2.0) == [("small", "e")]
    assert fleet.reserved is None


def test_a_reservation_ends_with_the_last_request_and_not_with_the_first_of_the_next_hour() -> None:
    fleet = fleet_of(decode("d", kv_used_tokens=9500, running=9))
    queue = WaitingQueue(law=QueueLaw())
    queue.add(Waiting("late", 0.0, 1e9, 5000, objective_at=1.0), 0.0)
    assert send(queue, fleet, 1.5) == send(queue, fleet, 40.0) == []
    fleet.put(decode("d"), 42.0)
    assert send(queue, fleet, 42.0) == [("late", "d")]
    assert fleet.reserved is None, "a request of the same name may come back after a failure"
    fleet.put(decode("d", kv_used_tokens=9500, running=9), 3600.0)
    queue.add(Waiting("next", 3600.0, 1e9, 5000, objective_at=3601.0), 3600.0)
    assert send(queue, fleet, 3602.0) == send(queue, fleet, 3631.0) == []
    assert fleet.reserved is not None, "pods were kept for late ones for two seconds, not for an hour"


def test_a_backlog_of_late_requests_does_not_keep_the_only_pod_from_those_who_come_in_time() -> None:
    fleet = fleet_of(decode("d", kv_used_tokens=10_000, running=9))
    queue = WaitingQueue(law=QueueLaw())
    for index in range(50):
        queue.add(Waiting(f"late{index}", 0.0, 1e9, 1000, objective_at=1.0), 0.0)
    sent: list[str] = []
    kept_for_late = 0
    for step in range(1200):  # a slot every 0.1 s, a request in time every 0.2 s
        now = 60.0 + step / 10
        if step % 2 == 0:
            queue.add(Waiting(f"fresh{step}", now, 1e9, 1000, objective_at=now + 1.0), now)
        free(fleet, "d-1", 1000 + HEADROOM_TOKENS, now)
        sent += [name for name, _ in send(queue, fleet, now)]
        kept_for_late += fleet.reserved is not None and fleet.reserved.is_late
        in_time = [name for name in sent if name.startswith("fresh")]
        assert len(in_time) >= step // 2 - 4, "who came in time waits for late ones"
    assert len([name for name in sent if name.startswith("late")]) == 50, "and late ones are served all the same"
    assert kept_for_late <= 1200 * queue.law.late_share


@pytest.mark.parametrize(("share", "again"), [(0.0, False), (1.0, True)])
def test_a_share_of_nothing_or_of_all_breaks_nothing(share: float, again: bool) -> None:
    fleet = fleet_of(decode("d", kv_used_tokens=9500, running=9))
    queue = WaitingQueue(law=QueueLaw(late_share=share))
    for name in ("one", "two"):
        queue.add(Waiting(name, 0.0, 1e9, 5000, objective_at=1.0), 0.0)
    assert send(queue, fleet, 1.5) == send(queue, fleet, 40.0) == []
    queue.remove("one")
    assert send(queue, fleet, 42.0) == []
    assert (fleet.reserved is not None) == again


def test_a_pod_is_kept_no_longer_for_a_request_that_became_late_meanwhile() -> None:
    fleet = fleet_of(decode("d", kv_used_tokens=10_000, running=1))
    queue = WaitingQueue(law=QueueLaw())
    queue.add(Waiting("old", 0.0, 600.0, 1000, objective_at=3.0), 0.0)
    queue.add(Waiting("new", 1.5, 600.0, 1000, objective_at=4.5), 1.5)
    assert send(queue, fleet, 1.6) == send(queue, fleet, 2.9) == []
    assert fleet.reserved is not None
    assert fleet.reserved.request_id == "old"
    assert next_look(queue, fleet, 2.9, None) == 3.0, "others may have use of what was kept"
    fleet.put(decode("d", kv_used_tokens=10_000 - 1000 - HEADROOM_TOKENS, running=1), 3.1)
    assert send(queue, fleet, 3.1) == [("new", "d")], "it makes its objective, the other one does not any more"
    assert len(queue) == 1


def test_late_requests_get_their_share_though_more_come_in_time_than_pods_have_room_for() -> None:
    fleet = fleet_of(decode("d", kv_used_tokens=10_000, running=9))
    queue = WaitingQueue(QueueLimits(max_requests=10_000, max_tokens=1 << 40), QueueLaw())
    for index in range(50):
        queue.add(Waiting(f"late{index}", 0.0, 1e9, 1000, objective_at=1.0), 0.0)
    in_time = late = 0
    for step in range(3000):
        now = 60.0 + step / 10
        for number in range(3):
            queue.add(Waiting(f"{number} of {step}", now, 1e9, 1000, objective_at=now + 3.05), now)
        free(fleet, "d-1", 1000 + HEADROOM_TOKENS, now)
        for name, _ in send(queue, fleet, now):
            is_old = name.startswith("late") or now > 60.0 + int(name.split()[-1]) / 10 + 3.05
            late, in_time = late + is_old, in_time + (not is_old)
    share = late / (late + in_time)
    assert queue.law.late_share / 2 < share < queue.law.late_share * 2.5, "who finds room at once costs nothing"
    assert late + in_time >= 3000 - 20, "and no room is left empty"


def test_an_open_stream_gets_its_pod_as_soon_as_one_in_time_whatever_its_objective_was() -> None:
    fleet = fleet_of(decode("d", kv_used_tokens=5000, running=5))
    queue = WaitingQueue(law=QueueLaw())
    queue.add(Waiting("late", 0.0, 1e9, 9000, objective_at=1.0), 2.0)
    queue.add(Waiting("stream", 0.0, 1e9, 9000, objective_at=1.0, resumed=True, streaming=True), 2.0)
    assert send(queue, fleet, 2.0) == []
    assert send(queue, fleet, 2.0 + queue.law.pass_seconds) == []
    assert fleet.reserved is not None
    assert fleet.reserved[:3] == ("d-1", "stream", False)


def test_a_late_request_that_smaller_ones_pass_gets_its_pod_in_the_end() -> None:
    fleet = fleet_of(decode("d", kv_used_tokens=5000, running=5))
    queue = WaitingQueue(law=QueueLaw())
    queue.add(Waiting("large", 0.0, 1e9, 9000, objective_at=1.0), 0.0)
    sent: list[str] = []
    for step in range(400):
        now = 2.0 + step / 10
        queue.add(Waiting(f"small{step}", now, 1e9, 900, objective_at=now + 5.0), now)
        free(fleet, "d-1", 900 + HEADROOM_TOKENS, now)
        sent += [name for name, _ in send(queue, fleet, now)]
        if "large" in sent:
            break
    assert QueueLaw().late_patience_seconds <= now <= QueueLaw().late_patience_seconds + 2.0
    assert fleet.reserved is None or fleet.reserved.request_id != "large"


def test_what_no_pod_will_ever_hold_is_told_apart_and_blocks_nobody() -> None:
    assert send(queue_of(20_000, 100), fleet_of(decode("d")), 0.0) == [("r0", "never"), ("r1", "d")]


def test_prefill_pods_get_little_more_than_they_can_start_so_that_the_order_is_made_late() -> None:
    fleet = fleet_of(
        decode("d", coefficients=H100, kv_total_tokens=1 << 30), prefill("p", coefficients=H100), ahead_seconds=0.1
    )
    queue = WaitingQueue()
    for index in range(50):
        queue.add(Waiting(f"r{index}", 0.0, 600.0, 1000, objective_at=10.0 - index / 10), 0.0)
    first = send(queue, fleet, 0.0)
    assert [name for name, _ in first] == ["r49", "r48", "r47"]
    assert fleet.pods["p-1"].busy_until == 3 * H100.prefill_seconds(1000)
    look = next_look(queue, fleet, 0.0, None)
    assert look is not None
    assert len(send(queue, fleet, look)) == 1, "at the very moment that was told"


def test_requests_that_need_no_prefill_pod_do_not_wait_for_one() -> None:
    fleet = fleet_of(decode("d"), prefill("p", waiting_tokens=1 << 20), short_tokens=64)
    assert send(queue_of(1000, 64, 900, 10, short_tokens=64), fleet, 0.0) == [("r1", "d"), ("r3", "d")]


def test_a_retry_waits_for_another_pod_and_meanwhile_blocks_nobody() -> None:
    fleet = fleet_of(decode("d"))
    queue = queue_of()
    avoid = frozenset({"d-1"})
    queue.add(Waiting("again", 0.0, 600.0, 10, resumed=True, streaming=True, avoid=avoid, avoid_until=0.5), 0.0)
    queue.add(Waiting("new", 0.0, 600.0, 10), 0.0)
    assert send(queue, fleet, 0.0) == [("new", "d")]
    assert next_look(queue, fleet, 0.0, None) == 0.5
    assert send(queue, fleet, 0.5) == [("again", "d")]


def test_the_moment_at_which_a_decode_pod_may_take_the_prompt_is_told_beforehand() -> None:
    fleet = fleet_of(
        decode("d", coefficients=H100, kv_total_tokens=1 << 30), prefill("p", coefficients=H100, busy_until=9.0)
    )
    queue = WaitingQueue()
    queue.add(Waiting("r0", 0.0, 600.0, 1000, objective_at=2.0, tpot_seconds=0.05), 0.0)
    assert send(queue, fleet, 0.0) == []
    assert next_look(queue, fleet, 0.0, None) == 1.0
    assert send(queue, fleet, 1.0) == [("r0", "d")]


def test_without_any_pod_all_wait_and_nothing_is_learned_about_the_speed_of_pods() -> None:
    queue, fleet = queue_of(100, 100), fleet_of()
    assert send(queue, fleet, 0.0) == []
    assert send(queue, fleet, 100.0) == []
    assert queue.drain.tokens_per_second(100.0) is None


def test_a_pause_that_ends_while_no_pod_is_there_makes_nobody_look_again_and_again() -> None:
    queue, fleet = queue_of(), fleet_of(decode("d1"))
    queue.add(Waiting("r", 0.0, 600.0, 100, avoid=frozenset({"d1-1"}), avoid_until=0.5), 0.0)
    assert send(queue, fleet, 0.1) == []
    fleet.drop("d1-1")
    assert send(queue, fleet, 0.6) == []
    look = next_look(queue, fleet, 0.6, 0.2)
    assert look is not None
    assert look > 100
    fleet.put(decode("d2"), 0.7)
    assert send(queue, fleet, 0.7) == [("r", "d2")]


def test_who_waits_for_room_stays_parked_while_the_pod_that_has_it_is_too_slow() -> None:
    full = decode("full", running=2, kv_used_tokens=9_900, coefficients=H100)
    slow = decode("slow", running=200, kv_used_tokens=2_000, coefficients=H100)
    limit = (full.step_seconds(1, 1000) + slow.step_seconds(1)) / 2
    fleet = fleet_of(full, slow, tpot_seconds=limit, tpot_share=1.0)
    queue = queue_of(1000, 1000)
    for tick in range(40):
        assert send(queue, fleet, tick / 10) == []
    assert len(queue._parked[False]) == 2, "nobody was woken in vain"
    fleet.put(msgspec.structs.replace(slow, running=2), 4.0)
    assert sorted(send(queue, fleet, 4.0)) == [("r0", "slow"), ("r1", "slow")]


def test_what_left_while_it_waited_for_room_is_forgotten() -> None:
    queue = queue_of()
    for index in range(5000):
        queue.add(Waiting(f"r{index}", 0.0, 600.0, 100), 0.0)
        queue.park(f"r{index}", 1 << 40, 0.0)
        if index != 7:
            queue.remove(f"r{index}")
    assert len(queue._parked[False]) == 1
    queue.wake(1.0, 1 << 41)
    assert queue.first(1.0) is not None


@pytest.mark.parametrize("sizes", [(1000,), (700, 900, 1000, 1100, 2500, 4000)])
def test_a_freed_slot_costs_a_few_looks_however_many_wait_for_room(sizes: tuple[int, ...]) -> None:
    fleet = fleet_of(decode("d0", kv_used_tokens=10_000))
    queue = WaitingQueue(QueueLimits(max_requests=10_000, max_tokens=1 << 40))
    looks = 0

    def count_looks(entry: Waiting) -> dict[str, int]:
        nonlocal looks
        looks += 1
        return {}

    for index in range(5000):
        queue.add(Waiting(f"r{index}", 0.0, 1e9, sizes[index % len(sizes)]), 0.0)
    assert next_dispatch(queue, fleet, 0.0, count_looks) is None
    assert looks == 5000, "everyone is looked at once"
    for freed in range(1, 51):
        looks, now = 0, freed / 100
        pod = decode("d0", running=5, kv_used_tokens=10_000 - max(sizes) - HEADROOM_TOKENS)
        fleet.put(pod, now)
        sent = next_dispatch(queue, fleet, now, count_looks)
        assert sent is not None
        assert sent.pair is not None
        fleet.put(msgspec.structs.replace(pod, kv_used_tokens=10_000), now)
        assert next_dispatch(queue, fleet, now, count_looks) is None
        assert looks <= 2 * (WOKEN_AT_ONCE + 1)
        assert len(queue) == 5000 - freed


def test_what_was_parked_goes_by_priority_and_deadline_and_a_tenant_that_had_much_steps_back() -> None:
    fleet = fleet_of(decode("d0", kv_used_tokens=10_000))
    queue = WaitingQueue(law=QueueLaw(tenant_burst_tokens=2500))
    for index in range(8):
        queue.add(Waiting(f"low{index}", 0.0, 1e9, 1000, objective_at=50.0 + index, tenant="a"), 0.0)
        queue.add(Waiting(f"b{index}", 0.0, 1e9, 1000, objective_at=90.0 + index, tenant="b"), 0.0)
    queue.add(Waiting("high", 0.0, 1e9, 1000, objective_at=99.0, priority=5), 0.0)
    queue.add(Waiting("late", 0.0, 1e9, 1000, objective_at=0.01), 0.0)
    assert next_dispatch(queue, fleet, 0.1) is None
    order = []
    for _ in range(8):
        fleet.put(decode("d0", running=5, kv_used_tokens=10_000 - 1000 - HEADROOM_TOKENS), 0.2)
        sent = next_dispatch(queue, fleet, 0.2)
        assert sent is not None
        order.append(sent.entry.id)
        fleet.put(decode("d0", running=5, kv_used_tokens=10_000), 0.2)
        next_dispatch(queue, fleet, 0.2)
    assert order == ["high", "low0", "low1", "low2", "b0", "low3", "b1", "low4"]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 9_900), st.integers(0, 20), st.sampled_from(["", "a", "b"])), min_size=1, max_size=60
    ),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_request_is_served_in_the_end_whatever_its_size_and_however_many_smaller_ones_come(
    requests: list[tuple[int, int, str]], pods: int, packs: bool
) -> None:
    fleet = fleet_of(*[decode(f"d{index}") for index in range(pods)], packs=packs)
    queue = WaitingQueue(QueueLimits(max_requests=1000), QueueLaw(pass_seconds=2.0))
    running: list[tuple[float, str, int]] = []
    served: list[str] = []
    now = 0.0
    while len(served) < len(requests):
        index = int(now * 2)
        if index < len(requests) and f"r{index}" not in queue and f"r{index}" not in served:
            tokens, slack, tenant = requests[index]
            queue.add(Waiting(f"r{index}", now, 1e9, tokens, objective_at=now + slack, tenant=tenant), now)
        for ends, incarnation, tokens in [each for each in running if each[0] <= now]:
            running.remove((ends, incarnation, tokens))
            free(fleet, incarnation, tokens, now)
        while (found := next_dispatch(queue, fleet, now)) is not None:
            assert found.pair is not None
            pod = found.pair.decode
            used = pod.kv_used_tokens + found.entry.tokens + HEADROOM_TOKENS
            assert used <= pod.kv_total_tokens
            fleet.put(msgspec.structs.replace(pod, kv_used_tokens=used, running=pod.running + 1), now)
            running.append((now + 3.0, pod.incarnation, found.entry.tokens + HEADROOM_TOKENS))
            served.append(found.entry.id)
        now += 0.5
        assert now < 1000, "somebody starves"
    assert len(set(served)) == len(requests)
