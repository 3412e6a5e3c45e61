"""The KV link is a resource: both ends are busy while a prompt's KV goes over, and decoding waits for it."""

from __future__ import annotations

import msgspec
import pytest
from tandem_operator.simulation.link import Port, send
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.workload import Request
from tandem_runtime.contracts.coefficients import Link

from tests.operator.simulation.fleets import Given, Planned, coefficients, scenario

LINK = Link(setup_s=0.5, bytes_per_s=100.0)


def test_transfers_over_one_end_follow_each_other_and_others_do_not_wait() -> None:
    source, target, other = Port(), Port(), Port()
    assert send(LINK, source, target, 200, now=1.0) == 3.5
    assert send(LINK, source, other, 100, now=1.0) == 4.5, "the way out is taken until 3.0"
    assert send(LINK, Port(), target, 100, now=10.0) == 11.5
    assert send(LINK, Port(), Port(), 100, now=1.0) == 2.5


def test_a_link_too_slow_for_the_load_is_what_requests_wait_for() -> None:
    slow = msgspec.structs.replace(coefficients(), link=Link(setup_s=0.1, bytes_per_s=5_000.0), kv_bytes_per_token=1)
    requests = tuple(Request(1.0 + 0.01 * index, 1_000, 2) for index in range(10))
    outcome = simulate(scenario(Given(requests, 30.0), ttft_s=100.0, truth=slow), Planned(), 0)
    assert outcome.completed == 10
    assert outcome.ttft_s.p99 == pytest.approx(0.1 + 10 * 0.2 + 0.1, abs=0.2), "ten times 1000 bytes, one after another"


def test_a_pod_that_does_both_needs_no_link_and_no_prefill_pod() -> None:
    requests = tuple(Request(1.0 + index, 1_000, 11) for index in range(5))
    made = scenario(Given(requests, 30.0), (0, 1), fleet={"aggregated": True})
    outcome = simulate(made, Planned(), 0)
    assert (outcome.completed, outcome.converted) == (5, 5)
    assert outcome.ttft_s.p99 == pytest.approx(0.1, abs=0.02)
