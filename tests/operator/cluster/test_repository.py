"""config.json from a model's repository: found, absent, refused, too large, or no JSON, each told in a few words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tandem_operator.cluster.repository import SIZE_LIMIT, Repository, is_nobodys
from tandem_operator.reconcile.models import Unread

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def open_to(hub: str = "") -> Repository:
    """One that may ask this machine, where tests serve."""
    return Repository(hub, is_barred=lambda address: is_nobodys(address) and not address.startswith("127."))


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_hub_is_asked_for_the_revision_and_a_folder_for_its_files() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path.endswith("index.json"):
            return web.Response(status=404)
        return web.json_response({"hidden_size": 1})

    async with serving(answer) as url:
        assert await open_to(url).read("hf://org/model@v1/2") == ({"hidden_size": 1}, None)
        assert await open_to(url).read("hf://org/model") == ({"hidden_size": 1}, None)
        assert await open_to().read(f"{url}/folder/") == ({"hidden_size": 1}, None)
    assert asked[::2] == [
        "/org/model/resolve/v1/2/config.json", "/org/model/resolve/main/config.json", "/folder/config.json",
    ]  # fmt: skip


async def test_an_index_tells_the_size_and_a_broken_one_is_done_without() -> None:
    async def answer(request: web.Request) -> web.Response:
        if "good" in request.path or request.path.endswith("config.json"):
            return web.json_response({"metadata": {"total_size": 5}})
        return web.Response(status=500)

    async with serving(answer) as url:
        assert (await open_to().read(f"{url}/good"))[1] == {"metadata": {"total_size": 5}}
        assert (await open_to().read(f"{url}/bad"))[1] is None


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (401, "", "it answers 401"),
        (404, "", "there is none"),
        (200, "<html>", "it is no JSON"),
        (200, "[1]", "it is no JSON object"),
        (200, "[" * 100_000, "it is no JSON"),
        (200, "1" * (SIZE_LIMIT + 2), "it is larger than 4 MiB"),
    ],
)
async def test_what_cannot_be_read_is_told_in_a_few_words(status: int, text: str, says: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    async with serving(answer) as url:
        with pytest.raises(Unread, match=says):
            await open_to().read(f"{url}/x")


async def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(Unread, match="it is not reached"):
        await open_to().read("http://127.0.0.1:9/x")


@pytest.mark.parametrize(
    ("address", "barred"),
    [
        ("169.254.169.254", True), ("fe80::1%eth0", True), ("::ffff:169.254.169.254", True), ("fd00:ec2::254", True),
        ("100.100.100.200", True), ("127.0.0.1", True), ("::1", True), ("0.0.0.0", True),
        ("10.96.0.10", False), ("192.168.1.5", False), ("52.85.1.1", False), ("2600:9000::1", False),
    ],
)  # fmt: skip
def test_metadata_services_and_the_operator_itself_are_no_repositories(address: str, barred: bool) -> None:
    assert is_nobodys(address) is barred


@pytest.mark.parametrize(
    "uri", ["http://169.254.169.254/x/", "http://localhost:9/x/", "http://[::ffff:169.254.169.254]/x/"]
)
async def test_an_address_that_is_barred_is_not_connected_to_under_any_name(uri: str) -> None:
    with pytest.raises(Unread, match="it is not reached") as told:
        await Repository().read(uri)
    assert "is no address of a model repository" in repr(told.value.__cause__)


async def test_a_redirect_leads_to_no_address_that_is_barred() -> None:
    async def answer(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://169.254.169.254/latest/meta-data")

    async with serving(answer) as url:
        with pytest.raises(Unread, match="it is not reached") as told:
            await open_to().read(f"{url}/x")
    assert "169.254.169.254 is no address of a model repository" in repr(told.value.__cause__)
