"""The waiting queue: order, bounds, expiry, in times that the test says."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.policy import bands
from tandem_runtime.policy.queue import QueueFull, WaitingQueue
from tandem_runtime.policy.waiting import QueueLaw, QueueLimits, Waiting


def waiting(name: str, arrived: float = 0.0, timeout_at: float = 600.0, tokens: int = 10, **more: object) -> Waiting:
    return Waiting(name, arrived, timeout_at, tokens, **more)  # type: ignore[arg-type]


def served(queue: WaitingQueue, now: float) -> list[str]:
    """All that wait, in the order in which they are sent off at that time."""
    order = []
    while (entry := queue.first(now)) is not None:
        order.append(entry.id)
        queue.dispatched(entry.id, now)
    return order


def test_open_streams_go_first_then_priorities_then_deadlines_then_arrival() -> None:
    queue = WaitingQueue()
    queue.add(waiting("none", arrived=0), 0)
    queue.add(waiting("far", arrived=1, objective_at=9), 0)
    queue.add(waiting("near", arrived=2, objective_at=5), 0)
    queue.add(waiting("urgent", arrived=3, objective_at=9, priority=10), 0)
    queue.add(waiting("stream", arrived=4, resumed=True, streaming=True), 0)
    assert served(queue, 4) == ["stream", "urgent", "near", "far", "none"]


def test_without_objectives_and_under_fifo_requests_leave_in_order_of_arrival() -> None:
    for law in (QueueLaw(), QueueLaw(order="fifo")):
        queue = WaitingQueue(law=law)
        for name, arrived in (("second", 2), ("third", 3), ("resumed", 1)):
            bound = inf if law.order == "deadline" else arrived - 7.0 * arrived
            queue.add(waiting(name, arrived=arrived, objective_at=bound), 3)
        assert served(queue, 3) == ["resumed", "second", "third"]


def test_what_cannot_make_its_objective_any_more_lets_those_pass_that_still_can() -> None:
    queue = WaitingQueue(law=QueueLaw(late_margin_seconds=0))
    queue.add(waiting("old", arrived=0, objective_at=2, service_seconds=0.5), 0)
    queue.add(waiting("new", arrived=1, objective_at=3, service_seconds=0.5), 1)
    first = queue.first(1.49)
    assert first is not None
    assert first.id == "old"
    assert served(queue, 1.5) == ["new", "old"]


def test_among_late_ones_the_priority_decides_but_a_salvageable_one_of_low_priority_goes_before_them() -> None:
    queue = WaitingQueue()
    queue.add(waiting("late", objective_at=1), 2)
    queue.add(waiting("late-urgent", objective_at=1, priority=5), 2)
    queue.add(waiting("in-time", objective_at=9, priority=-5), 2)
    assert served(queue, 2) == ["in-time", "late-urgent", "late"]


def test_late_work_that_waited_long_gets_its_share_of_the_tokens_and_no_more() -> None:
    law = QueueLaw(late_share=0.1, late_patience_seconds=30)
    queue = WaitingQueue(QueueLimits(max_requests=10_000), law)
    for index in range(300):
        queue.add(waiting(f"late{index}", arrived=index / 1000, objective_at=1, tokens=100), 0)
    sent = []
    for step in range(1000):
        now = 40 + step / 100
        queue.add(waiting(f"new{step}", arrived=now, objective_at=now + 1, tokens=100), now)
        entry = queue.first(now)
        assert entry is not None
        queue.dispatched(entry.id, now)
        sent.append(entry.id)
    late = [name for name in sent if name.startswith("late")]
    assert 95 <= len(late) <= 101
    assert late == [f"late{index}" for index in range(len(late))], "the oldest first"


def test_before_its_patience_ends_late_work_gets_nothing_that_others_need() -> None:
    queue = WaitingQueue(law=QueueLaw(late_patience_seconds=30))
    queue.add(waiting("late", objective_at=1), 0)
    for step in range(20):
        queue.add(waiting(f"new{step}", arrived=5, objective_at=29), 5)
    assert served(queue, 5)[-1] == "late"


def busy_queue(**law: object) -> WaitingQueue:
    """One that has seen that the fleet takes 1000 tokens a second."""
    queue = WaitingQueue(law=QueueLaw(late_margin_seconds=0, **law))  # type: ignore[arg-type]
    for index in range(41):
        queue.add(waiting(f"seen{index}", tokens=1000), -40)
    for index in range(40):
        queue.dispatched(f"seen{index}", -39.0 + index)
    queue.add(waiting("small0", objective_at=4, tokens=500), 1)
    queue.remove("seen40")
    queue.add(waiting("large", objective_at=4, tokens=2500), 1)
    return queue


def test_when_not_all_can_be_in_time_the_largest_steps_back_and_is_still_served_before_what_is_late() -> None:
    queue = busy_queue()
    queue.add(waiting("small1", objective_at=4.1, tokens=500), 1)
    queue.add(waiting("late", objective_at=0.5, tokens=100), 1)
    assert served(queue, 1) == ["small0", "small1", "large", "late"]
    unknown = busy_queue(sets_back=False)
    unknown.add(waiting("small1", objective_at=4.1, tokens=500), 1)
    assert served(unknown, 1) == ["small0", "large", "small1"]


def test_while_all_can_be_in_time_size_means_nothing() -> None:
    queue = busy_queue()
    queue.add(waiting("small1", objective_at=9, tokens=500), 1)
    assert served(queue, 1) == ["small0", "large", "small1"]


def test_a_large_one_of_a_high_priority_does_not_step_back_for_small_ones_of_a_lower() -> None:
    queue = busy_queue()
    queue.add(waiting("urgent", objective_at=4, tokens=2500, priority=1), 1)
    assert served(queue, 1) == ["urgent", "small0", "large"]


def test_a_tenant_with_a_flood_of_requests_does_not_keep_the_others_waiting() -> None:
    queue = WaitingQueue(law=QueueLaw(tenant_burst_tokens=300))
    for index in range(50):
        queue.add(waiting(f"flood{index:02}", objective_at=5, tokens=100, tenant="flood"), 0)
    for index in range(5):
        queue.add(waiting(f"small{index}", arrived=1, objective_at=6, tokens=100, tenant="small"), 1)
    order = served(queue, 1)
    assert order[:3] == ["flood00", "flood01", "flood02"], "within the burst deadlines decide"
    assert max(order.index(f"small{index}") for index in range(5)) <= 14


def test_a_tenant_that_was_idle_saved_nothing_up() -> None:
    queue = WaitingQueue(law=QueueLaw(tenant_burst_tokens=100))
    queue.add(waiting("guest", tenant="idle"), 0)
    assert served(queue, 0) == ["guest"]
    for index in range(40):
        queue.add(waiting(f"busy{index}", tenant="busy", tokens=100), 0)
        if index < 20:
            busy = queue.first(0)
            assert busy is not None
            queue.dispatched(busy.id, 0)
    for index in range(20):
        queue.add(waiting(f"idle{index}", tenant="idle", tokens=100), 0)
    order = served(queue, 0)
    assert sum(name.startswith("busy") for name in order[:20]) >= 8, "they take turns, the newcomer is owed nothing"


def test_the_bounds_refuse_new_requests_but_never_a_resumed_one() -> None:
    queue = WaitingQueue(QueueLimits(max_requests=2, max_tokens=100))
    queue.add(waiting("huge", tokens=1000), 0)  # alone it may wait: no pod would ever see it otherwise
    with pytest.raises(QueueFull, match="1000 prompt tokens wait already and the limit is 100"):
        queue.add(waiting("next"), 0)
    queue.remove("huge")
    queue.add(waiting("a"), 0)
    queue.add(waiting("b"), 0)
    with pytest.raises(QueueFull, match="2 requests wait already") as full:
        queue.add(waiting("c"), 0)
    assert full.value.reason == "queue_full"
    with pytest.raises(QueueFull) as alone:
        queue.add(waiting("c"), 0, pods=False)
    assert alone.value.reason == "no_pod"
    queue.add(waiting("resumed", resumed=True), 0)
    assert len(queue) == 3


def test_retry_after_is_the_time_that_the_backlog_takes_at_the_rate_measured() -> None:
    queue = WaitingQueue(QueueLimits(max_requests=100))
    for index in range(100):
        queue.add(waiting(str(index), tokens=1000), 0)
    for step in range(20):
        queue.dispatched(str(step), (step + 1) / 2)
    assert queue.retry_after_seconds(10) == pytest.approx(80 / 2, abs=4)
    for index in range(20):
        queue.add(waiting(f"more{index}", tokens=1000), 10)
    with pytest.raises(QueueFull, match=r"try again in \d\d s") as full:
        queue.add(waiting("one more"), 10)
    assert full.value.retry_after_seconds == pytest.approx(50, abs=5)


def test_a_request_that_would_surely_time_out_in_the_queue_is_told_so_at_once() -> None:
    queue = WaitingQueue()
    for index in range(100):
        queue.add(waiting(str(index), tokens=1000), 0)
    for step in range(10):
        queue.dispatched(str(step), step + 1)
    with pytest.raises(QueueFull, match="the request's timeout is 20 s") as full:
        queue.add(waiting("hasty", timeout_at=30), 10)
    assert full.value.reason == "backlog"
    queue.add(waiting("patient", timeout_at=100), 10)
    queue.add(waiting("in time before all that is late", timeout_at=30, objective_at=12), 10)


def test_late_requests_are_shed_only_when_the_law_says_so_and_never_one_that_was_admitted() -> None:
    for sheds in (False, True):
        queue = WaitingQueue(law=QueueLaw(sheds_late=sheds))
        queue.add(waiting("late", objective_at=2), 0)
        queue.add(waiting("resumed", objective_at=2, resumed=True), 0)
        queue.add(waiting("in-time", objective_at=9), 0)
        assert queue.first(3) is not None  # whoever looks first changes nothing
        gone = [(entry.id, why) for entry, why in queue.expire(3, None)]
        assert gone == ([("late", "late")] if sheds else [])
        assert "resumed" in queue


def test_without_pods_a_request_waits_for_the_time_to_live_from_its_arrival_or_the_loss_of_the_last_pod() -> None:
    queue = WaitingQueue(QueueLimits(wait_for_pods_seconds=120))
    queue.add(waiting("old", arrived=0), 0)
    queue.add(waiting("new", arrived=100), 100)
    assert queue.expire(119, no_pod_since=0) == []
    assert [(entry.id, why) for entry, why in queue.expire(120, no_pod_since=0)] == [("old", "no_pod")]
    assert queue.expire(10_000, no_pod_since=None)[0][1] == "timeout"
    queue.add(waiting("later", arrived=0), 0)
    assert queue.expire(200, no_pod_since=100) == []
    assert queue.next_event(200, no_pod_since=100) == 220


def test_the_request_timeout_ends_the_wait_also_while_pods_are_there() -> None:
    queue = WaitingQueue()
    queue.add(waiting("a", timeout_at=5, objective_at=1), 0)
    assert queue.expire(4, no_pod_since=None) == [], "an objective that is missed is no error"
    assert queue.next_event(4, no_pod_since=None) == 5
    assert [why for _, why in queue.expire(5, no_pod_since=None)] == ["timeout"]
    assert queue.next_event(5, no_pod_since=None) is None


def test_a_retry_avoids_the_pods_that_failed_it_for_a_while() -> None:
    entry = waiting("a", avoid=frozenset({"pod1"}), avoid_until=3.0)
    assert entry.avoided(2.9) == {"pod1"}
    assert entry.avoided(3.0) == frozenset()
    queue = WaitingQueue()
    queue.add(entry, 0)
    queue.pause("a", 3.0)
    assert queue.first(0) is None
    assert queue.next_event(0, no_pod_since=None) == 3.0
    queue.wake(3.0, 0)
    assert queue.first(3.0) == entry


def test_slack_is_told_by_the_edges_of_the_contract_and_forgets_nothing_that_is_far_late() -> None:
    queue = WaitingQueue()
    for name, objective_at in (("far late", 10), ("late", 99.7), ("soon", 100.3), ("later", 107), ("none", inf)):
        queue.add(waiting(name, objective_at=objective_at, tokens=7), 0)
    told = queue.slack(100)
    assert {index: count for index, count in enumerate(told.requests) if count} == {0: 1, 5: 1, 8: 1, 12: 1, 15: 1}
    assert sum(told.tokens) == 35
    queue.remove("far late")
    queue.remove("late")
    assert queue.slack(100).requests[:6] == [0] * 6


def test_memory_is_that_of_what_waits_however_many_came_and_went() -> None:
    queue = WaitingQueue()
    queue.add(waiting("stays", objective_at=1e6, timeout_at=1e6), 0)
    for index in range(20_000):
        now = index / 100
        queue.add(waiting(str(index), now, now + 600, objective_at=now + 500), now)
        queue.dispatched(str(index), now)
    line = queue._far
    heaps = [
        queue._timeouts,
        queue._arrivals,
        line._turns,
        line._aging,
        *[each.largest for each in line._in_time.values()],
    ]
    assert max(map(len, heaps)) < 3000
    assert len(line._where) == 1


def test_requests_that_are_parked_again_and_again_are_not_sorted_anew_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rebuilt: list[int] = []

    def heapify(heap: list[object]) -> None:
        rebuilt.append(len(heap))
        heap.sort()  # type: ignore[call-overload]

    monkeypatch.setattr(bands, "heapify", heapify)
    queue = WaitingQueue()
    names = [str(index) for index in range(200)]
    for index, name in enumerate(names):
        queue.add(waiting(name, 0, 1e6, objective_at=1e5 + index), 0)
    for now in range(20):  # one at a time, so that the line knows the others twice
        for name in names:
            queue.park(name, 1000, now)
            queue.unpark(name, now)
    assert len(rebuilt) < 40
    assert max(rebuilt) <= len(names)
    assert served(queue, 400.0) == names


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "remove", "dispatch", "park", "pause"]),
        st.integers(0, 20),
        st.integers(1, 40),
        st.integers(0, 100),
        st.sampled_from(["", "a", "b"]),
        st.integers(0, 30) | st.none(),
    ),
    max_size=60,
)


@given(STEPS, st.sampled_from([QueueLaw(), QueueLaw(order="fifo"), QueueLaw(tenant_burst_tokens=20, short_tokens=9)]))
def test_whatever_happens_counts_agree_and_nothing_is_lost_or_given_twice(
    steps: list[tuple[str, int, int, int, str, int | None]], law: QueueLaw
) -> None:
    queue = WaitingQueue(QueueLimits(max_requests=5, max_tokens=120, wait_for_pods_seconds=10), law)
    inside: dict[str, Waiting] = {}
    now = 0.0
    for number, (action, passed, tokens, patience, tenant, bound) in enumerate(steps):
        now += passed
        head = queue.first(now)
        if action == "add":
            objective_at = inf if bound is None else now + bound
            entry = waiting(str(number), now, now + patience, tokens, objective_at=objective_at, tenant=tenant)
            try:
                queue.add(entry, now)
                inside[entry.id] = entry
            except QueueFull:
                assert len(inside) >= 5 or queue.tokens + tokens > 120 or queue.drain.tokens_per_second(now)
        elif head is not None:
            if action == "park":
                queue.park(head.id, tokens, now)
            elif action == "pause":
                queue.pause(head.id, now + patience)
            else:
                getattr(queue, {"remove": "remove", "dispatch": "dispatched"}[action])(
                    head.id, *([now] if action == "dispatch" else [])
                )
                del inside[head.id]
        for entry, why in queue.expire(now, no_pod_since=0.0):
            assert inside.pop(entry.id) is entry
            assert now >= (entry.timeout_at if why == "timeout" else entry.arrived + 10)
        queue.wake(now, patience)
        assert {entry.id for entry in queue.entries()} == set(inside)
        assert queue.tokens == sum(entry.tokens for entry in inside.values())
        assert sum(queue.slack(now).requests) == len(inside) == len(queue)
        following = queue.next_event(now, no_pod_since=0.0)
        assert (following is None) == (not inside)
    queue.wake(inf, inf)
    assert sorted(served(queue, now)) == sorted(inside)
    assert not queue
