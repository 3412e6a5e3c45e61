"""The Lease: one holder, a standby that takes over, and a holder that notices its loss."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tandem_operator.cluster.lease import Lease, LeaseLost
from tandem_operator.config import LeaseSettings
from tandem_operator.reconcile.errors import ApiError


class Store:
    """A Lease object with the optimistic lock of the API server."""

    def __init__(self) -> None:
        self.body: dict[str, Any] | None = None
        self.version = 0
        self.down = False

    def _check(self) -> None:
        if self.down:
            raise ApiError(0, "not reached")

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        self._check()
        return copy.deepcopy(self.body)

    async def create(self, body: dict[str, Any]) -> bool:
        self._check()
        return self.body is None and self._store(body)

    async def replace(self, body: dict[str, Any]) -> bool:
        self._check()
        return body["metadata"]["resourceVersion"] == str(self.version) and self._store(body)

    def _store(self, body: dict[str, Any]) -> bool:
        self.version += 1
        self.body = copy.deepcopy(body)
        self.body["metadata"]["resourceVersion"] = str(self.version)
        return True

    @property
    def holder(self) -> str:
        assert self.body is not None
        return str(self.body["spec"]["holderIdentity"])


class Clock:
    """Sleeping moves it; it stops the test when something sleeps for ever."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limit = 60.0

    def read(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.limit:
            raise TimeoutError


def lease(store: Store, clock: Clock, identity: str) -> Lease:
    return Lease(store, "system", identity, LeaseSettings(), clock.read, clock.sleep)


async def test_the_first_takes_it_and_the_second_stands_by() -> None:
    store, clock = Store(), Clock()
    await lease(store, clock, "one").acquire()
    assert store.holder == "one"
    assert clock.now == 0
    clock.limit = 10
    standby = lease(store, clock, "two")
    with pytest.raises(TimeoutError):
        await standby.acquire()
    assert standby.reached
    assert store.holder == "one"


async def test_a_silent_holder_is_replaced_after_the_lease_has_run_out() -> None:
    store, clock = Store(), Clock()
    await lease(store, clock, "one").acquire()
    await lease(store, clock, "two").acquire()
    assert store.holder == "two"
    assert 15 <= clock.now <= 17
    assert store.body is not None
    assert store.body["spec"]["leaseTransitions"] == 1


async def test_a_released_lease_is_taken_at_once() -> None:
    store, clock = Store(), Clock()
    first = lease(store, clock, "one")
    await first.acquire()
    await first.release()
    await lease(store, clock, "two").acquire()
    assert store.holder == "two"
    assert clock.now == 0
    await first.release()
    assert store.holder == "two", "a lease of somebody else is not released"


@pytest.mark.parametrize("spec", [None, {}])
async def test_a_lease_that_a_person_made_empty_is_taken(spec: dict[str, Any] | None) -> None:
    store, clock = Store(), Clock()
    store.body = {"metadata": {"name": "tandem-operator", "resourceVersion": "0"}, "spec": spec}
    first = lease(store, clock, "one")
    await first.acquire()
    assert (store.holder, clock.now) == ("one", 0)


async def test_a_holder_renews_and_notices_when_another_has_it() -> None:
    store, clock = Store(), Clock()
    holder = lease(store, clock, "one")
    await holder.acquire()
    with pytest.raises(TimeoutError):
        await holder.hold()
    assert store.version > 20
    assert store.body is not None
    store.body["spec"] |= {"holderIdentity": "two", "renewTime": "later"}
    clock.limit = 1e9
    with pytest.raises(LeaseLost, match="another instance"):
        await holder.hold()


async def test_a_holder_that_cannot_renew_gives_up_before_the_lease_runs_out() -> None:
    store, clock = Store(), Clock()
    holder = lease(store, clock, "one")
    await holder.acquire()
    store.down = True
    with pytest.raises(LeaseLost, match="not renewed for 10 s"):
        await holder.hold()
    assert clock.now < LeaseSettings().duration_seconds


async def test_an_api_server_that_is_away_is_waited_for() -> None:
    store, clock = Store(), Clock()
    store.down = True
    waiting = lease(store, clock, "one")
    with pytest.raises(TimeoutError):
        await waiting.acquire()
    assert not waiting.reached
    store.down, clock.now = False, 0.0
    await waiting.acquire()
    assert waiting.reached
