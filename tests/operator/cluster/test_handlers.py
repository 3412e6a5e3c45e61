"""kopf's settings, traps included, and what its events become."""

from __future__ import annotations

import kopf
import pytest
from kopf._cogs.structs.references import Resource
from kubernetes.aio.client import Configuration
from tandem_operator.cluster.handlers import CHILDREN, connection_info, make_registry, make_settings

PLURALS = [plural for _, _, plural in CHILDREN]


@pytest.mark.parametrize(("group", "version", "plural"), CHILDREN, ids=PLURALS)
def test_children_are_watched_by_label_only(group: str, version: str, plural: str) -> None:
    resource = Resource(group=group, version=version, plural=plural, namespaced=True, preferred=True)
    selectors = list(make_settings().watching.label_selectors.collect(resource))
    assert selectors == ["app.kubernetes.io/managed-by=tandem"]


def test_a_service_of_another_group_and_the_deployments_themselves_are_not_filtered() -> None:
    selectors = make_settings().watching.label_selectors
    for group, plural in (("serving.knative.dev", "services"), ("tandem.dev", "inferencedeployments")):
        other = Resource(group=group, version="v1", plural=plural, namespaced=True, preferred=True)
        assert list(selectors.collect(other)) == []


def test_kopf_keeps_no_state_and_asks_for_no_rights_of_its_own() -> None:
    settings = make_settings()
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.process.ultimate_exiting_timeout is not None
    assert settings.process.ultimate_exiting_timeout < 30
    registry = make_registry(lambda key: None, Configuration())
    assert registry._watching.get_all_handlers()
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()
    assert not registry._indexing.get_all_handlers()


async def test_every_event_becomes_the_key_of_the_deployment() -> None:
    keys: list[tuple[str, str]] = []
    registry = make_registry(keys.append, Configuration())
    for handler in registry._watching.get_all_handlers():
        labels = {"tandem.dev/deployment": "chat"}
        await handler.fn(namespace="team", name="chat", labels=labels)  # type: ignore[call-arg, misc]
    assert keys == [("team", "chat")] * (1 + len(CHILDREN))
    keys.clear()
    for handler in registry._watching.get_all_handlers()[1:]:
        await handler.fn(namespace="team", name="other", labels={})  # type: ignore[call-arg, misc]
    assert keys == []


async def test_kopf_logs_in_with_the_credentials_of_the_client() -> None:
    configuration = Configuration(host="https://api:6443", api_key={"BearerToken": "bearer abc"})
    info = await connection_info(configuration)
    assert isinstance(info, kopf.ConnectionInfo)
    assert (info.server, info.scheme, info.token) == ("https://api:6443", "Bearer", "abc")
    without = await connection_info(Configuration(host="https://api:6443"))
    assert (without.scheme, without.token) == (None, None)
