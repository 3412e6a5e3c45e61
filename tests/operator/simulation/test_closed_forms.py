"""The simulated fleet against queues whose answer is known in closed form.

Fleet = exact recursion on the same arrivals, tightly; recursion = closed form on many, so fleet = closed form.
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from math import factorial
from random import Random

import pytest
from tandem_operator.simulation.fleet import Fleet
from tandem_operator.simulation.workload import Request

from tests.operator.simulation.fleets import Given, coefficients, scenario

TOKENS_PER_S = 10_000
FEW, MANY = 1_500, 150_000


def draw(count: int, rate: float, is_exponential: bool, seed: int) -> list[tuple[float, int]]:
    """Arrival and prompt tokens; a service takes one second on average."""
    random = Random(seed)
    at_s, drawn = 0.0, []
    for _ in range(count):
        at_s += random.expovariate(rate)
        tokens = max(1, round(random.expovariate(1 / TOKENS_PER_S))) if is_exponential else TOKENS_PER_S
        drawn.append((at_s, tokens))
    return drawn


def recursion_wait(drawn: list[tuple[float, int]], servers: int) -> float:
    """Mean wait of first come, first served: each goes to the server that is free first."""
    free = [0.0] * servers
    heapify(free)
    total = 0.0
    for at_s, tokens in drawn:
        start = max(at_s, free[0])
        total += start - at_s
        heapreplace(free, start + tokens / TOKENS_PER_S)
    return total / len(drawn)


def fleet_wait(drawn: list[tuple[float, int]], servers: int, step_tokens: int) -> float:
    """Mean wait before the computing of a prompt starts."""
    requests = tuple(Request(at_s, tokens, 1) for at_s, tokens in drawn)
    made = scenario(
        Given(requests, drawn[-1][0] + 1000.0),
        start=(servers, 1),
        ttft_s=1e6,
        truth=coefficients(kv_tokens=10**9, max_sequences=10**6),
        fleet={"step_tokens": step_tokens, "request_timeout_s": 1e9},
    )
    fleet = Fleet(made, 0, "fifo", False)
    fleet.events.run_until(made.until_s)
    assert fleet.inside() == 0
    ledger = fleet.ledger
    waits = [ttft - n / TOKENS_PER_S for ttft, n in zip(ledger.ttft_s, ledger.prompt_tokens, strict=True)]
    return sum(waits) / len(waits)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_pod_with_equal_prompts_waits_as_m_d_1(load: float) -> None:
    drawn = draw(FEW, load, False, 1)
    assert fleet_wait(drawn, 1, TOKENS_PER_S) == pytest.approx(recursion_wait(drawn, 1), rel=0.01)
    assert recursion_wait(draw(MANY, load, False, 1), 1) == pytest.approx(load / (2 * (1 - load)), rel=0.08)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.7), (5, 0.8)])
def test_pods_with_exponential_prompts_wait_as_m_m_c(servers: int, load: float) -> None:
    drawn, step_tokens = draw(FEW, load * servers, True, 2), TOKENS_PER_S // 10
    found = fleet_wait(drawn, servers, step_tokens) - step_tokens / TOKENS_PER_S / 2
    assert found == pytest.approx(recursion_wait(drawn, servers), rel=0.15, abs=0.05), "ends fall on ends of steps"
    offered = load * servers
    full = offered**servers / factorial(servers) / (1 - load)
    erlang_c = full / (sum(offered**k / factorial(k) for k in range(servers)) + full)
    many = recursion_wait(draw(MANY, offered, True, 2), servers)
    assert many == pytest.approx(erlang_c / (servers * (1 - load)), rel=0.08)


def test_a_decode_pool_holds_arrival_rate_times_time_inside() -> None:
    random = Random(5)
    at_s, requests = 0.0, []
    for _ in range(2000):
        at_s += random.expovariate(10.0)
        requests.append(Request(at_s, 10, 1 + random.randint(50, 150)))
    made = scenario(Given(tuple(requests), at_s), truth=coefficients(max_sequences=1000))
    fleet = Fleet(made, 0, "fifo", False)
    held = []
    for second in range(20, int(at_s)):
        fleet.events.run_until(float(second))
        held.append(sum(pod.requests for pod in fleet.decode.pods))
    assert sum(held) / len(held) == pytest.approx(10.0 * 100 * 0.01, rel=0.06)
