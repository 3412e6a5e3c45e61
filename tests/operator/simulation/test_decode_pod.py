"""A decode pod's closed form is what its steps would have been, one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.simulation.decode import DecodePod
from tandem_operator.simulation.events import Events
from tandem_operator.simulation.flight import Flight
from tandem_operator.simulation.workload import Request
from tandem_runtime.contracts.coefficients import Coefficients

from tests.operator.simulation.fleets import coefficients

ARRIVALS = st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 400), st.integers(1, 60)), min_size=1, max_size=25)
STEP = (0.01, 0.0005, 2e-6)


def ends_of(pod_of: Coefficients, arrivals: list[tuple[float, int, int]]) -> tuple[dict[int, float], DecodePod]:
    """When each request had its last token."""
    events, ends = Events(), {}
    pod = DecodePod("decode", events, 1, pod_of, 512, lambda f: ends.update({f.row: events.now}), lambda p: None)

    def arrive(flight: Flight) -> None:
        pod.reserve(flight)
        pod.join(flight)

    for row, (at_s, prompt, output) in enumerate(sorted(arrivals)):
        events.at(at_s, arrive, Flight(row, Request(at_s, prompt, output), 1.0, 1.0, 1e9))
    events.run_until(1e6)
    return ends, pod


def ends_step_by_step(pod_of: Coefficients, arrivals: list[tuple[float, int, int]]) -> dict[int, float]:
    """The same without any closed form; KV is never short here."""
    waiting = [(at_s, row, prompt, output) for row, (at_s, prompt, output) in enumerate(sorted(arrivals))]
    ends = {row: at_s for at_s, row, _, output in waiting if output == 1}
    waiting = [item for item in waiting if item[3] > 1]
    running: dict[int, list[int]] = {}
    now = 0.0
    while waiting or running:
        while waiting and waiting[0][0] <= now + 1e-9 and len(running) < pod_of.max_sequences:
            _, row, prompt, output = waiting.pop(0)
            running[row] = [prompt, output - 1]
        if not running:
            now = waiting[0][0]
            continue
        now += pod_of.step_seconds(len(running), sum(kv for kv, _ in running.values()))
        for row, sequence in list(running.items()):
            sequence[0] += 1
            sequence[1] -= 1
            if sequence[1] == 0:
                ends[row] = now
                del running[row]
    return ends


@given(ARRIVALS)
def test_every_request_ends_when_single_steps_would_have_ended_it(arrivals: list[tuple[float, int, int]]) -> None:
    pod_of = coefficients(phi=STEP, kv_tokens=10**9, max_sequences=6)
    ends, _ = ends_of(pod_of, arrivals)
    exact = ends_step_by_step(pod_of, arrivals)
    assert ends.keys() == exact.keys()
    slowest = pod_of.step_seconds(6, 6 * 460)
    assert all(abs(ends[row] - exact[row]) <= slowest for row in ends), "a join on the very edge of a step may differ"
    if len(arrivals) == 1:
        assert abs(ends[0] - exact[0]) < 1e-9


@given(ARRIVALS, st.integers(500, 900))
@settings(max_examples=40)
def test_with_little_kv_the_youngest_gives_way_and_all_end_without_a_leak(
    arrivals: list[tuple[float, int, int]], kv_tokens: int
) -> None:
    ends, pod = ends_of(coefficients(phi=STEP, kv_tokens=kv_tokens), arrivals)
    assert len(ends) == len(arrivals)
    assert pod.idle
    assert pod.kv_used(1e6) == 0
    assert pod.output_tokens >= sum(output for _, _, output in arrivals)


def test_kv_used_grows_with_every_step_and_is_known_between_events() -> None:
    events = Events()
    pod = DecodePod("decode", events, 1, coefficients(), 512, lambda f: None, lambda p: None)
    flight = Flight(0, Request(0.0, 100, 1000), 1.0, 1.0, 1e9)
    pod.reserve(flight)
    assert pod.kv_used(0.0) == 101
    pod.join(flight)
    events.run_until(1.0)
    assert pod.kv_used(1.0) == 200
    assert pod.output_now(1.0) == 101


def test_a_prompt_computed_here_slows_the_steps_that_carry_it() -> None:
    events, ends = Events(), {}
    pod = DecodePod(
        "decode", events, 1, coefficients(), 500, lambda f: ends.update({f.row: events.now}), lambda p: None
    )
    first = Flight(0, Request(0.0, 10, 101), 1.0, 1.0, 1e9)
    pod.reserve(first)
    pod.join(first)
    events.run_until(0.5)
    second = Flight(1, Request(0.5, 1000, 2), 1.0, 1.0, 1e9)
    pod.reserve(second)
    pod.compute(second)
    events.run_until(10.0)
    assert abs(ends[0] - (100 * 0.01 + 1000 * 1e-4)) < 1e-9, "two chunks of 500 tokens lengthen two steps by 50 ms each"
    assert abs(second.first_s - (0.5 + 2 * 0.06)) < 0.0101


def test_a_request_that_gave_way_and_is_back_after_one_step_ends_when_it_would_have() -> None:
    pod_of = coefficients(phi=STEP, kv_tokens=330)
    ends, pod = ends_of(pod_of, [(0.0, 100, 60), (0.0, 100, 60), (0.0, 100, 60)])
    assert pod.preemptions > 0
    assert len(ends) == 3
    assert pod.kv_used(1e6) == 0
