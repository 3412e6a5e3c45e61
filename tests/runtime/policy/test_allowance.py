"""What one key may take: never more than its limits, whoever counts and however the clock goes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.key_entry import KeyLimits
from tandem_runtime.policy.allowance import BURST_SECONDS, Allowance

TIMES = st.lists(st.floats(0, 120), max_size=200).map(sorted)


@settings(max_examples=40)
@given(TIMES, st.integers(1, 600), st.integers(1, 4))
def test_requests_of_any_span_keep_the_rate_plus_one_burst_over_all_routers(
    times: list[float], per_minute: int, routers: int
) -> None:
    limits = KeyLimits(requests_per_minute=per_minute)
    allowances = [Allowance(limits, routers, 0.0) for _ in range(routers)]
    taken = [now for now in times for each in allowances if each.start(now) is None]
    burst = routers * max(1.0, per_minute / routers / 60 * BURST_SECONDS)
    for first in range(0, len(taken), 7):
        for last in range(first, len(taken), 5):
            span = taken[last] - taken[first]
            assert last - first + 1 <= burst + per_minute / 60 * span + 1e-6


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.floats(-5, 5)), max_size=100), st.integers(1, 9), st.integers(1, 4))
def test_never_more_at_once_than_allowed_also_when_the_clock_goes_back(
    steps: list[tuple[bool, float]], concurrent: int, routers: int
) -> None:
    allowances = [Allowance(KeyLimits(max_concurrent=concurrent), routers, 0.0) for _ in range(routers)]
    now, running = 0.0, [0] * routers
    for index, (starts, seconds) in enumerate(steps):
        now += seconds
        router = index % routers
        if starts:
            running[router] += allowances[router].start(now) is None
        elif running[router]:
            allowances[router].end()
            running[router] -= 1
        assert sum(running) <= max(concurrent, routers)
        assert running == [each.running for each in allowances]


def test_tokens_may_be_overdrawn_by_what_is_in_flight_and_then_the_next_wait() -> None:
    allowance = Allowance(KeyLimits(tokens_per_minute=6000), 1, 0.0)
    assert allowance.start(0.0) is None
    allowance.spend(3000, 0.0)
    over = allowance.start(0.0)
    assert over is not None
    assert (over.reason, over.retry_after_seconds) == ("key_token_rate", 21)
    assert allowance.start(19.9) is not None
    assert allowance.start(20.1) is None


def test_a_second_router_halves_what_is_left_and_what_was_used_stays_used() -> None:
    allowance = Allowance(KeyLimits(requests_per_minute=120), 1, 0.0)
    assert [allowance.start(0.0) is None for _ in range(18)] == [True] * 18
    allowance.change(KeyLimits(requests_per_minute=120), 2, 0.0)
    over = allowance.start(0.0)
    assert over is not None
    assert over.reason == "key_request_rate"
    assert "shared by 2 routers" in over.message
    assert over.retry_after_seconds == 9, "8 more than its share were taken, and one has to come back"


def test_a_concurrency_below_the_number_of_routers_still_lets_one_request_through_each() -> None:
    assert Allowance(KeyLimits(max_concurrent=2), 3, 0.0).concurrent == 1
    assert Allowance(KeyLimits(max_concurrent=7), 3, 0.0).concurrent == 2


def test_what_was_used_is_forgotten_only_when_nothing_is_lost_by_it() -> None:
    allowance = Allowance(KeyLimits(max_concurrent=2, tokens_per_minute=60), 1, 0.0)
    allowance.start(0.0)
    assert not allowance.idle(100.0)
    allowance.spend(10, 100.0)
    allowance.end()
    assert not allowance.idle(105.0)
    assert allowance.idle(111.0)
