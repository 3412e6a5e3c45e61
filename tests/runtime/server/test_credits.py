"""Credits: whatever routers do, die of or fail to hear, together they never get more than there is."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_runtime.contracts.pod_protocol import Credits
from tandem_runtime.router.lease import SendLease
from tandem_runtime.server.credits import GRACE_SECONDS, KINDS, LEASE_SECONDS, Backlog, CreditLedger, Room

ROUTERS = (1, 2, 3)


class World:
    """A pod of `slots` requests and `kv` tokens, routers, and what is on its way between them."""

    def __init__(self, slots: int, kv: int) -> None:
        self.slots, self.kv, self.now = slots, kv, 0.0
        self.ledger = CreditLedger()
        self.running: list[int] = []
        self.routers: dict[int, SendLease] = {}
        self.to_pod: dict[int, deque[int]] = {}
        self.to_router: dict[int, deque[Credits]] = {}
        self.refused = 0

    def room(self) -> Room:
        return Room(self.slots - len(self.running), self.kv - sum(self.running), 1000)

    def share(self) -> None:
        self.ledger.share(self.room(), self.now)
        for router, lease in self.ledger.leases.items():
            ttl_ms = int(1000 * self.ledger.ttl_seconds(router, self.now))
            told = Credits("i", **lease.told, ttl_ms=ttl_ms, received=lease.received)
            self.to_router[router].append(told)
            assert all(0 <= lease.told[kind] <= lease.held[kind] for kind in KINDS)
        for kind in KINDS:
            held = sum(lease.held[kind] for lease in self.ledger.leases.values())
            assert held <= max(0, getattr(self.room(), kind)), kind

    def join(self, router: int) -> None:
        self.leave(router)
        self.ledger.join(router, self.now)
        self.routers[router], self.to_pod[router], self.to_router[router] = SendLease(), deque(), deque()
        self.share()

    def leave(self, router: int) -> None:
        self.ledger.leave(router)
        for each in (self.routers, self.to_pod, self.to_router):
            each.pop(router, None)  # type: ignore[attr-defined]

    def send(self, router: int, kv: int) -> bool:
        """A router sends only what it believes that it may."""
        lease = self.routers[router]
        slots, tokens = lease.slots(self.now), lease.kv_tokens(self.now)
        if slots is None or tokens is None or slots < 1 or tokens < kv:
            return False
        lease.sent(kv)
        self.to_pod[router].append(kv)
        return True

    def arrive(self, router: int) -> None:
        """The oldest request on its way is there."""
        if self.to_pod[router]:
            kv = self.to_pod[router].popleft()
            self.ledger.heard(router, self.now)
            self.ledger.arrived(router)
            if self.ledger.use(router, kv, kv, self.room(), self.now):
                self.running.append(kv)
            else:
                self.refused += 1
            assert len(self.running) <= self.slots
            assert sum(self.running) <= self.kv

    def hear(self, router: int) -> None:
        """The oldest word of the pod arrives."""
        if self.to_router[router]:
            self.routers[router].take(self.to_router[router].popleft(), self.now)

    def do(self, what: str, router: int, number: int) -> None:
        """One step of an interleaving; what makes no sense now is left out."""
        if what == "join":
            self.join(router)
        elif what == "share":
            self.share()
        elif what == "end" and self.running:
            self.running.pop(number % len(self.running))
        elif what == "time":
            self.now += (number - 10) / 8  # also back
        elif router in self.routers:
            self.do_at(what, router, number)

    def do_at(self, what: str, router: int, number: int) -> None:
        """Of a router that is there."""
        if what == "beat":
            self.ledger.heard(router, self.now)
        elif what == "want":
            self.ledger.report(router, Backlog(number, number * 7, number), self.now)
        elif what == "send":
            self.send(router, number)
        elif what != "end":
            getattr(self, what)(router)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "leave", "send", "arrive", "hear", "beat", "want", "end", "share", "share", "time"]),
        st.sampled_from(ROUTERS),
        st.integers(0, 40),
    ),
    max_size=120,
)


@settings(max_examples=100)
@given(STEPS, st.integers(0, 9), st.integers(0, 100))
def test_no_interleaving_of_grants_uses_expiries_deaths_and_clock_jumps_lets_in_more_than_there_is(
    steps: list[tuple[str, int, int]], slots: int, kv: int
) -> None:
    world = World(slots, kv)
    for what, router, number in steps:
        world.do(what, router, number)


@given(
    st.lists(st.tuples(st.sampled_from(["send", "arrive", "hear", "end", "share"]), st.integers(1, 30)), max_size=90)
)
def test_a_single_router_that_knows_what_is_on_its_way_is_never_turned_away(steps: list[tuple[str, int]]) -> None:
    world = World(4, 100)
    world.join(1)
    for what, number in steps:
        world.do(what, 1, number)
    assert world.refused == 0


def shared(world: World) -> dict[int, int]:
    world.share()
    return {router: lease.told["slots"] for router, lease in world.ledger.leases.items()}


def live(world: World, seconds: float) -> None:
    world.now += seconds
    for router in world.routers:
        world.ledger.heard(router, world.now)


def test_idle_routers_share_equally_and_one_with_a_backlog_gets_more_as_soon_as_the_grace_is_over() -> None:
    world = World(10, 1000)
    world.join(1)
    world.join(2)
    live(world, GRACE_SECONDS)
    assert shared(world) == {1: 5, 2: 5}
    assert world.ledger.report(1, Backlog(8, 80, 10), world.now)
    first = shared(world)
    assert first[2] == 1
    assert first[1] == 5, "what the other was told before may be on its way"
    assert world.ledger.wait_seconds(world.now) == GRACE_SECONDS
    live(world, GRACE_SECONDS)
    assert shared(world) == {1: 9, 2: 1}
    assert not world.ledger.report(1, Backlog(), world.now)


def test_two_large_requests_do_not_keep_each_other_waiting() -> None:
    world = World(4, 100)
    for router in (1, 2):
        world.join(router)
    live(world, 1.0)
    for router in (1, 2):
        world.ledger.report(router, Backlog(1, 60, 60), world.now)
    world.share()
    live(world, GRACE_SECONDS)
    world.share()
    assert world.ledger.leases[1].told["kv_tokens"] >= 60
    assert world.ledger.use(1, 60, 60, world.room(), world.now)
    world.running.append(60)
    world.ledger.report(1, Backlog(1, 60, 60), world.now)
    live(world, GRACE_SECONDS)
    world.running.clear()
    world.share()
    live(world, GRACE_SECONDS)
    world.share()
    assert world.ledger.leases[2].told["kv_tokens"] >= 60, "who was not served is first now"


def test_a_silent_routers_lease_is_free_after_two_seconds_and_a_broken_connections_at_once() -> None:
    world = World(8, 100)
    for router in (1, 2):
        world.join(router)
    world.now = LEASE_SECONDS - 0.01
    world.ledger.heard(2, world.now)
    assert sum(shared(world).values()) == 8
    world.now = LEASE_SECONDS
    assert shared(world) == {1: 0, 2: 8}
    world.join(3)
    world.ledger.leave(2)
    assert shared(world) == {1: 0, 3: 8}


def test_room_that_goes_is_taken_from_all_and_a_late_request_is_turned_away() -> None:
    world = World(4, 100)
    for router in (1, 2):
        world.join(router)
    live(world, GRACE_SECONDS)
    shared(world)
    world.kv = 10
    world.share()
    assert [lease.held["kv_tokens"] for lease in world.ledger.leases.values()] == [5, 5]
    assert not world.ledger.use(1, 6, 0, world.room(), world.now)
    assert world.ledger.use(1, 5, 0, world.room(), world.now)


def credit(**fields: Any) -> Credits:
    return Credits("i", **{"slots": 4, "kv_tokens": 100, "queue_tokens": 0, "ttl_ms": 2000, **fields})


def test_a_router_counts_what_the_pod_had_not_seen_when_it_counted() -> None:
    lease = SendLease()
    assert (lease.slots(0.0), lease.kv_tokens(0.0)) == (None, None)
    lease.sent(30)
    lease.sent(40)
    lease.take(credit(received=1), 0.0)
    assert (lease.slots(1.0), lease.kv_tokens(1.0)) == (3, 60)
    lease.sent(50)
    lease.unsent()
    assert lease.slots(1.0) == 3
    assert (lease.slots(2.0), lease.kv_tokens(2.0)) == (0, 0), "over"
    lease.take(credit(), 3.0)
    assert lease.slots(3.0) == 4, "a pod that does not count has seen all"
