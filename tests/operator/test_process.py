"""The whole operator in one process: it takes the Lease, watches, gives the Lease back, or stops when it is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
import yaml
from tandem_operator.__main__ import EXIT_LEASE_LOST, run
from tandem_operator.cluster.admission import PATH
from tandem_operator.cluster.certificates import issue
from tandem_operator.config import AdmissionSettings, LeaseSettings, Settings

from tests.operator.api_server import Server, served
from tests.operator.builders import emulated_body

QUICK = LeaseSettings(duration_seconds=5, renew_deadline_seconds=3, retry_seconds=0.05)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    made = Server()
    async with served(made) as host:
        context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [context],
            "clusters": [{"name": "x", "cluster": {"server": host}}], "users": [{"name": "x", "user": {}}],
        }  # fmt: skip
        (tmp_path / "config").write_text(yaml.safe_dump(content))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        # kubernetes.aio reads the variable when it is imported.
        monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
        yield made


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def holder(server: Server) -> str:
    return str(server.lease["spec"]["holderIdentity"]) if server.lease else ""


async def started(server: Server) -> asyncio.Task[int]:
    task = asyncio.create_task(run(Settings(lease=QUICK, telemetry_port=0)))
    await until(lambda: len(server.lists) >= 5)
    assert holder(server)
    await asyncio.sleep(0.1)
    return task


async def test_a_signal_ends_it_well_and_gives_the_lease_back(server: Server) -> None:
    task = await started(server)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await task == 0
    assert server.lease is not None
    assert holder(server) == ""


async def test_a_lost_lease_ends_it_with_an_error_and_stays_with_its_new_holder(server: Server) -> None:
    task = await started(server)
    server.take_lease("another")
    async with asyncio.timeout(20):
        assert await task == EXIT_LEASE_LOST
    assert holder(server) == "another"


async def test_a_standby_serves_admission_with_the_certificate_in_the_secret_and_writes_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_NAMESPACE", "system")
    name = "door.system.svc"
    credentials = issue([name], datetime.now(UTC))
    server.objects["/api/v1/namespaces/system/secrets/door"] = {"metadata": {}, "data": credentials.data()}
    server.lease = {"metadata": {}, "spec": {"holderIdentity": "another", "leaseDurationSeconds": 600}}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings(lease=QUICK, telemetry_port=0, admission=AdmissionSettings("door", port))
    task = asyncio.create_task(run(settings))
    request = {"uid": "1", "operation": "CREATE", "object": emulated_body(), "kind": {"kind": "InferenceDeployment"}}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    context = ssl.create_default_context(cadata=credentials.authorities)
    answer = None
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        while answer is None:
            try:
                url = f"https://127.0.0.1:{port}{PATH}"
                async with session.post(url, json=review, ssl=context, server_hostname=name) as response:
                    answer = await response.json()
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)
    assert answer["response"] == {"uid": "1", "allowed": True}
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await task == 0
    assert holder(server) == "another"
