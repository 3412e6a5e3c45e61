"""What is known of a model: asked once, again after a while when nobody answered, and never forgotten for an outage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tandem_operator.api.deployment import InferenceDeployment, parse_deployment
from tandem_operator.reconcile.errors import Waiting
from tandem_operator.reconcile.models import ASKED_AT_ONCE, RETRY_SECONDS, Models, Unread, shown

from tests.operator.builders import body, emulated_body
from tests.operator.performance import public_models

CONFIG: dict[str, Any] = next(
    value["Llama-3.1-8B"].config
    for value in vars(public_models).values()
    if isinstance(value, dict) and "Llama-3.1-8B" in value
)


class Hub:
    """Answers with `config`, or not at all."""

    def __init__(self, config: dict[str, Any] | None) -> None:
        self.config = config
        self.asked: list[str] = []
        self.now = 0.0

    async def read(self, uri: str) -> tuple[dict[str, Any], None]:
        self.asked.append(uri)
        if self.config is None:
            raise Unread("it answers 503")
        return self.config, None


def of_hub(uri: str = "hf://meta/x") -> InferenceDeployment:
    return parse_deployment(body(model={"uri": uri}))


async def test_a_repository_is_asked_once() -> None:
    hub = Hub(CONFIG)
    models = Models(hub.read, lambda: hub.now)
    assert models.told(of_hub()).shape is None, "admission asks nobody"
    for _ in range(3):
        known = await models.known(of_hub())
        assert known.shape
        assert known.shape.layers == 32
    assert hub.asked == ["hf://meta/x"]
    assert models.told(of_hub()).shape


async def test_one_that_does_not_answer_is_asked_again_after_a_while() -> None:
    hub = Hub(None)
    models = Models(hub.read, lambda: hub.now)
    for _ in range(3):
        assert "it answers 503" in (await models.known(of_hub())).why_not
    assert len(hub.asked) == 1
    hub.now, hub.config = RETRY_SECONDS, CONFIG
    assert (await models.known(of_hub())).shape


async def test_what_the_spec_says_goes_before_and_costs_no_question() -> None:
    hub = Hub(None)
    models = Models(hub.read, lambda: hub.now)
    given = body(model={"uri": "pvc://claim/x", "config": CONFIG})
    assert (await models.known(parse_deployment(given))).shape
    broken = await models.known(parse_deployment(body(model={"uri": "pvc://c/x", "config": {"num_hidden_layers": 2}})))
    assert broken.shape is None
    assert "model.config is not understood" in broken.why_not
    assert hub.asked == []


async def test_claims_images_and_emulated_pods_are_not_known_and_it_is_said_what_helps() -> None:
    models = Models(None, lambda: 0.0)
    for uri in ("pvc://claim/x", "file:///models/tiny"):
        assert f"the operator cannot read {uri}; give model.config" in (await models.known(of_hub(uri))).why_not
    emulated = await models.known(parse_deployment(emulated_body()))
    assert "executor Emulated has no model: give model.config" in emulated.why_not


async def test_repositories_that_keep_silent_hold_no_more_than_two_workers() -> None:
    gate = asyncio.Event()

    async def read(uri: str) -> tuple[dict[str, Any], None]:
        await gate.wait()
        return CONFIG, None

    models = Models(read, lambda: 0.0)
    asking = [asyncio.create_task(models.known(of_hub(f"hf://meta/{number}"))) for number in range(ASKED_AT_ONCE)]
    await asyncio.sleep(0)
    for uri in ("hf://meta/0", "hf://meta/other"):
        with pytest.raises(Waiting):
            await models.known(of_hub(uri))
    gate.set()
    assert all(known.shape for known in await asyncio.gather(*asking))
    assert (await models.known(of_hub("hf://meta/other"))).shape


def test_a_password_or_a_signature_in_an_address_is_not_told() -> None:
    assert shown("https://user:pass@host/a/b/?X-Signature=s") == "https://host/a/b/"
    assert shown("hf://org/model@main") == "hf://org/model@main"
