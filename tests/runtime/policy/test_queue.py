"""The waiting queue: order, bounds, expiry, in times that the test says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.policy.queue import QueueFull, QueueLimits, Waiting, WaitingQueue


def waiting(name: str, arrived: float = 0.0, deadline: float = 600.0, tokens: int = 10, **more: object) -> Waiting:
    return Waiting(name, arrived, deadline, tokens, **more)  # type: ignore[arg-type]


def test_requests_leave_in_order_of_arrival_and_a_resumed_one_keeps_its_place() -> None:
    queue = WaitingQueue()
    queue.add(waiting("second", arrived=2))
    queue.add(waiting("third", arrived=3))
    queue.add(waiting("resumed", arrived=1, resumed=True))
    assert [entry.id for entry in queue] == ["resumed", "second", "third"]


def test_the_bounds_refuse_new_requests_but_never_a_resumed_one() -> None:
    queue = WaitingQueue(QueueLimits(max_requests=2, max_tokens=100))
    queue.add(waiting("huge", tokens=1000))  # alone it may wait: no pod would ever see it otherwise
    with pytest.raises(QueueFull, match="1000 prompt tokens wait already and the limit is 100"):
        queue.add(waiting("next"))
    queue.remove("huge")
    queue.add(waiting("a"))
    queue.add(waiting("b"))
    with pytest.raises(QueueFull, match="2 requests wait already"):
        queue.add(waiting("c"))
    queue.add(waiting("resumed", resumed=True))
    assert len(queue) == 3


def test_without_pods_a_request_waits_for_the_time_to_live_from_its_arrival_or_the_loss_of_the_last_pod() -> None:
    queue = WaitingQueue(QueueLimits(wait_for_pods_seconds=120))
    queue.add(waiting("old", arrived=0))
    queue.add(waiting("new", arrived=100))
    assert queue.expire(119, no_pod_since=0) == []
    assert [(entry.id, why) for entry, why in queue.expire(120, no_pod_since=0)] == [("old", "no_pod")]
    assert queue.expire(10_000, no_pod_since=None)[0][1] == "timeout"
    queue.add(waiting("later", arrived=0))
    assert queue.expire(200, no_pod_since=100) == []
    assert queue.next_event(200, no_pod_since=100) == 220


def test_the_request_timeout_ends_the_wait_also_while_pods_are_there() -> None:
    queue = WaitingQueue()
    queue.add(waiting("a", deadline=5))
    assert queue.next_event(0, no_pod_since=None) == 5
    assert [why for _, why in queue.expire(5, no_pod_since=None)] == ["timeout"]
    assert queue.next_event(5, no_pod_since=None) is None


def test_a_retry_avoids_the_pods_that_failed_it_for_a_while() -> None:
    entry = waiting("a", avoid=frozenset({"pod1"}), avoid_until=3.0)
    assert entry.avoided(2.9) == {"pod1"}
    assert entry.avoided(3.0) == frozenset()
    queue = WaitingQueue()
    queue.add(entry)
    assert queue.next_event(0, no_pod_since=None) == 3.0


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 50), st.integers(1, 40), st.integers(0, 100), st.booleans()),
        max_size=60,
    )
)
def test_whatever_happens_counts_agree_and_nothing_is_lost_or_given_twice(
    steps: list[tuple[int, int, int, int, bool]],
) -> None:
    queue = WaitingQueue(QueueLimits(max_requests=5, max_tokens=120, wait_for_pods_seconds=10))
    inside: dict[str, Waiting] = {}
    now = 0.0
    for number, passed, tokens, patience, remove in steps:
        now += passed
        name = str(number)
        if remove:
            queue.remove(name)
            inside.pop(name, None)
        elif name not in inside:
            entry = waiting(name, arrived=now, deadline=now + patience, tokens=tokens)
            try:
                queue.add(entry)
                inside[name] = entry
            except QueueFull:
                assert len(inside) >= 5 or queue.tokens + tokens > 120
        for entry, why in queue.expire(now, no_pod_since=0.0):
            assert inside.pop(entry.id) is entry
            assert now >= (entry.deadline if why == "timeout" else entry.arrived + 10)
        assert {entry.id for entry in queue} == set(inside)
        assert queue.tokens == sum(entry.tokens for entry in inside.values())
        assert [entry.arrived for entry in queue] == sorted(entry.arrived for entry in queue)
        following = queue.next_event(now, no_pod_since=0.0)
        assert (following is None) == (not inside)
        assert following is None or following > now
