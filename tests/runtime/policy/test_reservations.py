"""Pods kept for who was passed, among late backlogs, slots and room: all are served, and nobody sleeps too long."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.policy.dispatch import next_dispatch, next_look
from tandem_runtime.policy.pods import HEADROOM_TOKENS
from tandem_runtime.policy.queue import WaitingQueue
from tandem_runtime.policy.waiting import Order, QueueLaw, Waiting

from tests.runtime.policy.test_dispatch import H100, decode, fleet_of, free, prefill

ARRIVALS = st.lists(
    st.tuples(
        st.floats(0, 30),
        st.one_of(st.integers(50, 1500), st.integers(5000, 9500)),
        st.sampled_from([0.5, 2.0, 10.0, 40.0, inf]),
        st.integers(0, 600),
    ),
    min_size=20,
    max_size=60,
)
"""Time, prompt, seconds to the objective, expected answer."""


class World:
    """Pods that take what they get for a time; looks only when something happens or when it was told to."""

    def __init__(self, order: Order, pods: int, slots: int, measured: bool, serve_s: float) -> None:
        known = {"coefficients": H100} if measured else {}
        decoders = (decode(f"d{index}", max_sequences=slots, **known) for index in range(pods))
        self.fleet = fleet_of(*decoders, *([prefill("p", **known)] if measured else []))
        self.queue = WaitingQueue(law=QueueLaw(order=order, late_patience_seconds=5.0))
        self.serve_s = serve_s
        self.served: set[str] = set()
        self.ends: list[tuple[float, str, int]] = []

    def look(self, now: float) -> int:
        """Requests that went."""
        before = len(self.served)
        while (found := next_dispatch(self.queue, self.fleet, now)) is not None:
            assert found.pair is not None
            pod, tokens = found.pair.decode, found.entry.tokens + HEADROOM_TOKENS
            used = pod.kv_used_tokens + tokens
            assert used <= pod.kv_total_tokens
            self.fleet.put(msgspec.structs.replace(pod, kv_used_tokens=used, running=pod.running + 1), now)
            if (peer := found.pair.prefill) is not None:
                busy_until = max(now, peer.busy_until or 0.0) + peer.prompt_seconds(found.entry.tokens)
                self.fleet.put(msgspec.structs.replace(peer, busy_until=busy_until), now)
            heappush(self.ends, (now + self.serve_s * (0.5 + tokens / 10_000), pod.incarnation, tokens))
            self.served.add(found.entry.id)
        kept = self.fleet.reserved
        assert kept is None or (kept.request_id in self.queue and self.fleet.pods[kept.incarnation].serves())
        return len(self.served) - before


@settings(max_examples=60, deadline=None)
@given(
    ARRIVALS,
    st.sampled_from(["deadline", "fifo"]),
    st.integers(1, 3),
    st.sampled_from([0, 3, 8]),
    st.booleans(),
    st.floats(2, 10),
)
def test_everybody_is_served_nobody_sleeps_too_long_and_no_reservation_outlives_its_request(
    arrivals: list[tuple[float, int, float, int]], order: Order, pods: int, slots: int, measured: bool, serve_s: float
) -> None:
    world = World(order, pods, slots, measured, serve_s)
    queue, fleet, now = world.queue, world.fleet, 0.0
    coming = sorted(enumerate(arrivals), key=lambda item: item[1][0], reverse=True)
    for _ in range(5000):
        if not (coming or world.ends or queue):
            break
        told = next_look(queue, fleet, now, None)
        arrives = coming[-1][1][0] if coming else inf
        then = min(arrives, world.ends[0][0] if world.ends else inf, inf if told is None else told)
        assert then < inf, "nobody will ever look again"
        if then > now + 1e-6:
            assert world.look((now + then) / 2) == 0, "somebody could have gone before"
        now = max(now, then)
        if arrives <= now:
            index, (_, tokens, objective_s, output) = coming.pop()
            deadline = now + objective_s
            entry = Waiting(f"r{index}", now, 1e9, tokens, objective_at=deadline, output_tokens=output)
            queue.add(msgspec.structs.replace(entry, service_seconds=0.2), now)
        elif world.ends and world.ends[0][0] <= now:
            _, incarnation, tokens = heappop(world.ends)
            free(fleet, incarnation, tokens, now)
        world.look(now)
    assert len(world.served) == len(arrivals), "looked for ever, or left somebody waiting"
    assert fleet.reserved is None
    assert not queue.has_parked()
