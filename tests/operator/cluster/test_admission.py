"""The webhook over real TLS on loopback."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.cluster.admission import BODY_BYTES, PATH, AdmissionServer
from tandem_operator.cluster.certificates import Credentials, issue
from tandem_operator.placement.problem import Objective, Problem

from tests.operator.builders import emulated_body
from tests.operator.placement.fleets import H100, LLAMA_8B, problem

NAME = "tandem-admission.tandem-system.svc"
Json = dict[str, Any]


def certificate(age_days: int = 0) -> Credentials:
    return issue([NAME], datetime.now(UTC) - timedelta(days=age_days))


class Webhook:
    """A server, what it said of itself, and an API server that asks it."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self.posed: Problem | None = None
        self.error: Exception | None = None
        self.server = AdmissionServer(self.pose, 0, lambda result, seconds: self.results.append(result))

    def pose(self, infd: InferenceDeployment) -> Problem | None:
        if self.error:
            raise self.error
        return self.posed

    async def ask(self, trusted: Credentials, data: bytes, path: str = PATH) -> tuple[int, str]:
        context = ssl.create_default_context(cadata=trusted.authorities)
        url = f"https://127.0.0.1:{self.server.port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=data, ssl=context, server_hostname=NAME) as response,
        ):
            return response.status, await response.text()

    async def review(self, trusted: Credentials, operation: str = "CREATE") -> Json:
        request = {
            "uid": "1",
            "kind": {"kind": "InferenceDeployment"},
            "operation": operation,
            "object": emulated_body("fleet"),
        }
        asked = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
        status, text = await self.ask(trusted, json.dumps(asked).encode())
        assert status == 200
        response: Json = json.loads(text)["response"]
        return response


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    made = Webhook()
    yield made
    await made.server.close()


async def test_an_impossible_objective_is_refused_over_tls(webhook: Webhook) -> None:
    made = certificate()
    await webhook.server.use(made)
    webhook.posed = problem(LLAMA_8B, H100, objective=Objective(ttft_s=0.001, tpot_s=0.0001))
    response = await webhook.review(made)
    assert response["allowed"] is False
    assert "objective" in response["status"]["message"]
    webhook.posed = problem(LLAMA_8B, H100, nodes=0)
    response = await webhook.review(made)
    assert response["allowed"] is True
    assert "wait for capacity" in response["warnings"][0]
    webhook.posed = None
    assert await webhook.review(made) == {"uid": "1", "allowed": True}
    assert webhook.results == ["refused", "warned", "allowed"]


async def test_an_error_of_ours_lets_the_object_through_and_says_so(webhook: Webhook) -> None:
    made = certificate()
    await webhook.server.use(made)
    webhook.error = RuntimeError("a bug")
    response = await webhook.review(made)
    assert response["allowed"] is True
    assert "not checked" in response["warnings"][0]
    assert webhook.results == ["error"]


async def test_a_renewed_certificate_is_served_without_a_restart(webhook: Webhook) -> None:
    old = certificate(age_days=61)
    await webhook.server.use(old)
    await webhook.review(old)
    new = issue([NAME], datetime.now(UTC), before=old)
    await webhook.review(new)  # told of the new authority, the API server still trusts the old certificate
    await webhook.server.use(new)
    only_new = Credentials(new.authorities.removesuffix(old.authorities), "", "", new.expires)
    await webhook.review(only_new)
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await webhook.review(old)


async def test_a_stranger_is_not_trusted(webhook: Webhook) -> None:
    await webhook.server.use(certificate())
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await webhook.review(certificate())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"kind": "AdmissionReview"}', b"null"])
async def test_a_malformed_review_is_answered_with_400(webhook: Webhook, data: bytes) -> None:
    made = certificate()
    await webhook.server.use(made)
    status, text = await webhook.ask(made, data)
    assert (status, webhook.results) == (400, ["malformed"])
    assert text


async def test_what_is_too_large_or_elsewhere_is_refused(webhook: Webhook) -> None:
    made = certificate()
    await webhook.server.use(made)
    assert (await webhook.ask(made, b"x" * (BODY_BYTES + 1)))[0] == 413
    assert (await webhook.ask(made, b"{}", "/"))[0] == 404


async def test_plain_http_gets_no_answer(webhook: Webhook) -> None:
    made = certificate()
    await webhook.server.use(made)
    reader, writer = await asyncio.open_connection("127.0.0.1", webhook.server.port)
    writer.write(b"POST /validate HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        answered = await asyncio.wait_for(reader.read(100), 5)
    except ConnectionError:
        answered = b""
    assert not answered.startswith(b"HTTP")
    writer.close()


async def test_a_damaged_certificate_changes_nothing(webhook: Webhook) -> None:
    made = certificate()
    await webhook.server.use(made)
    with pytest.raises(ssl.SSLError):
        await webhook.server.use(Credentials(made.authorities, made.certificate, certificate().key, made.expires))
    await webhook.review(made)
