"""API keys at a router: who has none stays outside, who takes too much waits, and a Secret changes while it runs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from tandem_runtime.__main__ import main
from tandem_runtime.contracts.goodput import SloClass
from tandem_runtime.contracts.key_entry import KeyEntry, hash_of, read_entry, write_entry
from tandem_runtime.contracts.names import EXIT_NO_KEYS
from tandem_runtime.openai.front import FrontSettings
from tandem_runtime.router import app, command
from tandem_runtime.router.key_folder import KEEP_SECONDS, KeyFolder
from tandem_runtime.router.keys import make_ring

from tests.runtime.router.fake_pod import FakePod
from tests.runtime.router.harness import Harness, eventually, running_router

ALICE, BOB = "alice-" + "a" * 32, "bob-" + "b" * 32


def entry(key: str, **limits: object) -> bytes:
    return write_entry(KeyEntry(hash_of(key), **limits))  # type: ignore[arg-type]


class Mount:
    """A folder as the kubelet mounts a Secret: entries are links into a folder that is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generation = 0

    def write(self, **entries: bytes) -> None:
        self._generation += 1
        folder = self.path / f"..generation{self._generation}"
        folder.mkdir()
        for name, content in entries.items():
            (folder / name).write_bytes(content)
        link = self.path / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(self.path / "..data")
        for name in entries:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path)


async def ask(router: Harness, key: str | None, **fields: object) -> tuple[int, str, object]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    status, body, answered = await router.complete(headers=headers, **fields)  # type: ignore[arg-type]
    return status, answered.get("x-tandem-reason", ""), body


async def test_only_a_valid_key_opens_the_door_and_the_error_is_of_openais_kind(mount: Mount) -> None:
    mount.write(alice=entry(ALICE))
    async with running_router(FakePod("d0"), keys_folder=mount.path) as router:
        assert (await ask(router, ALICE))[0] == 200
        status, reason, body = await ask(router, "wrong")
        assert (status, reason) == (401, "invalid_api_key")
        assert body["error"]["type"] == "authentication_error"  # type: ignore[index]
        assert (await ask(router, None))[:2] == (401, "missing_api_key")
        assert (await ask(router, "x" * 100_0))[:2] == (401, "invalid_api_key")
        assert (await ask(router, hash_of(ALICE)))[:2] == (401, "invalid_api_key")
        async with router.session.get(router.url + "/v1/models") as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        async with router.session.get(router.url + "/health") as answer:
            assert answer.status == 200
        signals = await router.signals()
    assert signals["classes"]["default"]["arrivals"] == 1, "who has no key is no arrival"


async def test_no_path_but_health_is_open_whoever_adds_one(mount: Mount) -> None:
    mount.write(alice=entry(ALICE))
    async with running_router(FakePod("d0"), keys_folder=mount.path) as router:
        resources = [route for route in router.app.front.application().router.routes() if route.method != "HEAD"]
        assert len(resources) >= 7
        for route in resources:
            path = str(route.resource.canonical).replace("{model}", "chat")  # type: ignore[union-attr]
            async with router.session.request(route.method, router.url + path, json={}) as answer:
                assert (path, answer.status) == (path, 200 if path == "/health" else 401)


async def test_the_access_log_says_whose_request_it_was_where_it_went_and_how_long_it_took(
    mount: Mount, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tandem.access")
    mount.write(alice=entry(ALICE, tenant="acme"))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    prefill, decode = FakePod("p0", role="prefill"), FakePod("d0")
    async with running_router(prefill, decode, keys_folder=mount.path) as router:
        headers = {"Authorization": f"Bearer {ALICE}", "traceparent": trace, "x-request-id": "r1"}
        await router.complete("my secret prompt", headers=headers, max_tokens=5)
        await ask(router, None)
    first, second = [record.__dict__["fields"] for record in caplog.records if record.name == "tandem.access"]
    told = {"request": "r1", "trace_id": trace[3:35], "key": "alice", "class": "default", "status": 200}
    told |= {"prompt_tokens": 17, "output_tokens": 5, "pods": "p0+d0", "prompt_by": "remote", "reason": "length"}
    assert {name: first[name] for name in told} == told
    assert first.keys() >= {"tenant", "ttft_seconds", "tpot_seconds", "queued_seconds", "seconds", "attempts"}
    assert "acme" not in str(first), "tenants stand there as a hash"
    assert (second["status"], second["reason"]) == (401, "missing_api_key")
    assert "key" not in second
    assert "secret" not in f"{first} {second}"
    assert ALICE not in f"{first} {second}"


async def test_a_secret_that_is_replaced_counts_without_a_restart(mount: Mount) -> None:
    mount.write(alice=entry(ALICE))
    async with running_router(FakePod("d0"), keys_folder=mount.path) as router:
        assert router.app.access is not None
        mount.write(bob=entry(BOB))
        await eventually(lambda: "bob" in router.app.access.keys.ring.keys)  # type: ignore[union-attr]
        assert (await ask(router, ALICE))[0] == 401
        assert (await ask(router, BOB))[0] == 200
        mount.write()
        await eventually(lambda: not router.app.access.keys.ring.keys)  # type: ignore[union-attr]
        assert (await ask(router, BOB))[:2] == (401, "no_api_keys")
        async with router.session.get(router.metrics_url + "/readyz") as answer:
            assert answer.status == 503
            assert "no valid API key" in await answer.text()


async def test_a_key_over_its_own_limit_gets_429_and_does_not_count_against_the_fleet(mount: Mount) -> None:
    mount.write(alice=entry(ALICE, requests_per_minute=12), bob=entry(BOB, max_concurrent=1))
    pod = FakePod("d0", token_seconds=0.05)
    async with running_router(pod, keys_folder=mount.path) as router:
        running = asyncio.create_task(ask(router, BOB, max_tokens=10))
        await eventually(lambda: len(pod.submits) == 1)
        status, body, headers = await router.complete(headers={"Authorization": f"Bearer {BOB}"})
        assert (status, headers["x-tandem-reason"], headers["Retry-After"]) == (429, "key_concurrency", "1")
        assert body["error"]["type"] == "rate_limit_error"
        assert (await running)[0] == 200
        assert (await ask(router, BOB, max_tokens=1))[0] == 200, "the running one has ended"
        assert [(await ask(router, ALICE, max_tokens=1))[0] for _ in range(3)] == [200, 200, 429]
        totals = (await router.signals())["classes"]["default"]
        assert (totals["arrivals"], totals["met"], totals["shed"], totals["refused"]) == (4, 4, 0, 0)
        metrics = await (await router.session.get(router.metrics_url + "/metrics")).text()
    assert 'tandem_router_key_refusals_total{reason="key_request_rate"} 1.0' in metrics
    assert 'tandem_router_api_keys{state="valid"} 2.0' in metrics


async def test_class_and_tenant_of_a_key_go_with_its_requests(mount: Mount) -> None:
    acme = {"tenant": "acme", "request_class": "batch"}
    mount.write(alice=entry(ALICE, **acme), bob=entry(BOB, **acme), carol=entry("c" * 40), dave=entry("d" * 40))
    pod = FakePod("d0")
    classes = [SloClass(name=name, ttft_base_s=9.0, tpot_s=9.0) for name in ("interactive", "batch")]
    async with running_router(pod, keys_folder=mount.path, classes=classes) as router:
        for key in (ALICE, BOB, "c" * 40, "d" * 40):
            assert (await ask(router, key))[0] == 200
        headers = {"Authorization": f"bearer {ALICE}", "x-tandem-class": "interactive"}
        assert (await router.complete(headers=headers))[0] == 200
    salts = [submit.tenant_salt for submit in pod.submits]
    assert salts[0] == salts[1] == salts[4]
    assert len({*salts, b""}) == 4, "who has no tenant shares with nobody"
    assert [submit.request_class for submit in pod.submits] == [
        "batch", "batch", "interactive", "interactive", "interactive"
    ]  # fmt: skip


async def test_limits_are_shared_by_as_many_routers_as_the_pods_see(mount: Mount) -> None:
    mount.write(alice=entry(ALICE, max_concurrent=4))
    pod = FakePod("d0")
    pod.routers = 2
    async with running_router(pod, keys_folder=mount.path) as router:
        assert router.app.access is not None
        await eventually(lambda: router.app.access.routers == 2)  # type: ignore[union-attr]
        assert (await ask(router, ALICE))[0] == 200
        assert router.app.access.allowances["alice"].concurrent == 2
        pod.routers = 0
        pod.tell_state()
        await eventually(lambda: router.app.access.routers == 1)  # type: ignore[union-attr]
        assert (await ask(router, ALICE))[0] == 200
        assert router.app.access.allowances["alice"].concurrent == 4, "what the endpoint file says: one"


async def test_bodies_and_keys_are_bounded(mount: Mount) -> None:
    mount.write(alice=entry(ALICE))
    front = FrontSettings("chat", max_body_bytes=1000)
    async with running_router(FakePod("d0"), keys_folder=mount.path, front=front) as router:
        assert (await ask(router, ALICE, prompt="x" * 2000))[:2] == (413, "body_too_large")


async def test_nothing_of_a_key_is_logged_whatever_happens(mount: Mount, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    mount.write(alice=entry(ALICE, tenant="acme"), broken=f"{BOB}".encode())
    async with running_router(FakePod("d0"), keys_folder=mount.path) as router:
        await ask(router, ALICE)
        await ask(router, BOB)
        async with router.session.get(router.metrics_url + "/readyz") as answer:
            assert await answer.text() == (
                "ok; 1 API keys do not count: broken: hash is not sha256: and 64 hex digits "
                "(make it with `tandem-runtime keys hash`)\n"
            )
    logged = " ".join(f"{record.getMessage()} {getattr(record, 'fields', '')}" for record in caplog.records)
    assert "'key': 'alice'" in logged
    for secret in (ALICE, BOB, hash_of(ALICE)[7:], "acme"):
        assert secret not in logged


def test_a_folder_that_cannot_be_read_keeps_the_keys_for_a_while_and_then_closes_the_door(mount: Mount) -> None:
    now = 100.0
    mount.write(alice=entry(ALICE))
    folder = KeyFolder(mount.path, lambda: now)
    folder.look()
    assert folder.ring.find(ALICE) is not None
    mount.path.rename(mount.path.with_name("gone"))
    now += KEEP_SECONDS - 1
    folder.look()
    assert folder.ring.find(ALICE) is not None
    now += 2
    folder.look()
    assert folder.ring.find(ALICE) is None
    assert "cannot be read" in folder.problem
    mount.path.with_name("gone").rename(mount.path)
    folder.look()
    assert folder.ring.find(ALICE) is not None
    assert folder.problem == ""


def test_of_two_entries_with_one_key_the_first_counts_with_its_limits() -> None:
    ring = make_ring({"b": entry(ALICE), "a": entry(ALICE, max_concurrent=1)})
    found = ring.find(ALICE)
    assert found is not None
    assert found.name == "a"
    assert ring.invalid == {"b": "it is the same key as a, whose limits hold"}


async def test_a_router_that_lost_its_keys_finishes_what_runs_and_then_ends(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "NO_KEYS_SECONDS", 0.1)
    mount.write(alice=entry(ALICE))
    pod = FakePod("d0", token_seconds=0.1)
    async with running_router(pod, keys_folder=mount.path) as router:
        ending = asyncio.create_task(app.wait_for_end(router.app, asyncio.Event()))
        running = asyncio.create_task(ask(router, ALICE, max_tokens=10))
        await eventually(lambda: len(pod.submits) == 1)
        mount.write()
        assert (await running)[0] == 200
        assert not ending.done() or isinstance(ending.exception(), app.NoKeys)
        with pytest.raises(app.NoKeys, match="no valid API key"):
            await asyncio.wait_for(ending, 5)


def test_a_router_without_any_valid_key_ends_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "NO_KEYS_SECONDS", 0.3)
    monkeypatch.setattr(command, "configure_logging", lambda role, pod: None)  # it would outlive this test
    (tmp_path / "token").write_text("secret")
    (tmp_path / "endpoints.json").write_text("{}")
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "alice").write_text(ALICE)
    files = ["--endpoints", str(tmp_path / "endpoints.json"), "--token-file", str(tmp_path / "token")]
    ports = ["--bind", "127.0.0.1", "--http-port", "0", "--metrics-port", "0"]
    code = main(["router", *files, *ports, "--model-name", "m", "--revision", "r", "--api-keys", str(keys)])
    said = capsys.readouterr().err
    assert code == EXIT_NO_KEYS
    assert "no valid API key: 1 API keys do not count: alice: hash is not sha256:" in said
    assert ALICE not in said


def test_a_key_is_made_once_and_its_entry_opens_the_door(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "alice", "--class", "batch", "--max-concurrent", "3"]) == 0
    said = capsys.readouterr()
    key = said.err.split()[-1]
    ring = make_ring({"alice": said.out.encode()})
    found = ring.find(key)
    assert found is not None
    assert (found.entry.request_class, found.entry.max_concurrent) == ("batch", 3)
    assert read_entry("alice", said.out.encode()).hash == hash_of(key)
