"""Who renews, in which order, and what happens when Secret or configuration were spoilt."""

from __future__ import annotations

import asyncio
import base64
import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tandem_operator.cluster.certificates import LIFETIME, Credentials
from tandem_operator.cluster.trust import Trust
from tandem_operator.reconcile.errors import ApiError

Json = dict[str, Any]
START = datetime(2030, 1, 1, tzinfo=UTC)


class Store:
    """A Secret and a webhook configuration, as the chart makes them."""

    def __init__(self) -> None:
        self.version = 1
        self.secret: Json | None = {"metadata": {"resourceVersion": "1"}}
        webhook = {"name": "placement.tandem.dev", "clientConfig": {"service": {"name": "x"}}}
        self.configuration: Json | None = {"webhooks": [webhook]}
        self.writes: list[str] = []
        self.between: Any = None

    async def get(self, kind: str, namespace: str, name: str) -> Json | None:
        found = copy.deepcopy(self.secret if kind == "Secret" else self.configuration)
        if kind == "Secret" and self.between:
            self.between()
        return found

    async def patch_json(self, kind: str, namespace: str, name: str, operations: list[Json]) -> None:
        if kind == "Secret":
            assert self.secret is not None
            test, change = operations
            if test["value"] != self.secret["metadata"]["resourceVersion"]:
                raise ApiError(422, "the test failed")
            self.version += 1
            self.secret = {"metadata": {"resourceVersion": str(self.version)}, "data": change["value"]}
        else:
            assert self.configuration is not None
            for operation in operations:
                if operation["op"] == "add":
                    assert operation["path"] == "/webhooks/0/clientConfig/caBundle"
                    self.configuration["webhooks"][0]["clientConfig"]["caBundle"] = operation["value"]
        self.writes.append(kind)

    @property
    def bundle(self) -> str:
        assert self.configuration is not None
        return base64.b64decode(self.configuration["webhooks"][0]["clientConfig"]["caBundle"]).decode()


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trust(store: Store, clock: Clock) -> Trust:
    return Trust(store, "tandem-system", "tandem-admission", "tandem-system-tandem", clock)


async def test_after_an_installation_trust_is_told_before_the_certificate_is_served(store: Store, trust: Trust) -> None:
    made = await trust.renew()
    assert made is not None
    assert store.writes == ["ValidatingWebhookConfiguration", "Secret"]
    assert store.bundle == made.authorities
    assert await trust.read() == made


async def test_nothing_is_written_until_a_month_before_the_end(store: Store, trust: Trust, clock: Clock) -> None:
    first = await trust.renew()
    store.writes.clear()
    clock.now = START + LIFETIME - timedelta(days=31)
    assert await trust.renew() == first
    assert store.writes == []
    clock.now += timedelta(days=2)
    second = await trust.renew()
    assert second is not None
    assert first is not None
    assert second != first
    assert second.expires == clock.now + LIFETIME
    assert first.certificate not in store.bundle
    assert first.authorities in store.bundle, "replicas still serve with the certificate before"


async def test_an_emptied_bundle_comes_back(store: Store, trust: Trust) -> None:
    made = await trust.renew()
    assert store.configuration is not None
    assert made is not None
    store.configuration["webhooks"][0]["clientConfig"].pop("caBundle")
    assert await trust.renew() == made
    assert store.bundle == made.authorities


async def test_a_spoilt_secret_is_replaced(store: Store, trust: Trust) -> None:
    made = await trust.renew()
    assert store.secret is not None
    store.secret["data"]["tls.key"] = base64.b64encode(b"mine").decode()
    again = await trust.renew()
    assert again not in (None, made)
    assert await trust.read() == again


async def test_of_two_that_renew_at_once_one_writes_the_secret(store: Store, trust: Trust) -> None:
    assert store.secret is not None
    secret = store.secret
    store.between = lambda: secret["metadata"].update(resourceVersion="other")
    store.secret = secret
    with pytest.raises(ApiError):
        await trust.renew()
    assert store.writes == ["ValidatingWebhookConfiguration"]


@pytest.mark.parametrize("missing", ["secret", "configuration"])
async def test_without_the_objects_of_the_chart_nothing_breaks(store: Store, trust: Trust, missing: str) -> None:
    setattr(store, missing, None)
    found = await trust.renew()
    assert (found is None) == (missing == "secret")


async def test_a_standby_writes_nothing_and_takes_what_is_there(store: Store, trust: Trust, clock: Clock) -> None:
    seen: list[Credentials] = []
    rounds = 0

    async def sleep(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            await Trust(store, "tandem-system", "tandem-admission", "tandem-system-tandem", clock).renew()
            store.writes.clear()
        if rounds == 4:
            raise asyncio.CancelledError

    async def changed(credentials: Credentials) -> None:
        seen.append(credentials)

    standby = Trust(store, "tandem-system", "tandem-admission", "tandem-system-tandem", clock, sleep)
    with pytest.raises(asyncio.CancelledError):
        await standby.follow(lambda: False, changed)
    assert seen == [await trust.read()]
    assert store.writes == []


async def test_an_api_server_that_is_away_does_not_end_it(store: Store, clock: Clock) -> None:
    answers = 0

    async def sleep(seconds: float) -> None:
        nonlocal answers
        answers += 1
        if answers == 3:
            raise asyncio.CancelledError

    async def away(kind: str, namespace: str, name: str) -> Json | None:
        raise ApiError(0, "nobody there")

    async def changed(credentials: Credentials) -> None:
        raise AssertionError

    store.get = away  # type: ignore[method-assign]
    trust = Trust(store, "tandem-system", "tandem-admission", "tandem-system-tandem", clock, sleep)
    with pytest.raises(asyncio.CancelledError):
        await trust.follow(lambda: True, changed)
    assert answers == 3
