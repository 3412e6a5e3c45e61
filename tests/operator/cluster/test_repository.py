"""config.json from a model's repository: found, absent, refused, too large, or no JSON, each told in a few words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tandem_operator.cluster.repository import SIZE_LIMIT, Repository
from tandem_operator.reconcile.models import Unread

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
        assert await Repository(url).read("hf://org/model@v1/2") == ({"hidden_size": 1}, None)
        assert await Repository(url).read("hf://org/model") == ({"hidden_size": 1}, None)
        assert await Repository().read(f"{url}/folder/") == ({"hidden_size": 1}, None)
    assert asked[::2] == [
        "/org/model/resolve/v1/2/config.json", "/org/model/resolve/main/config.json", "/folder/config.json",
    ]  # fmt: skip


async def test_an_index_tells_the_size_and_a_broken_one_is_done_without() -> None:
    async def answer(request: web.Request) -> web.Response:
        if "good" in request.path or request.path.endswith("config.json"):
            return web.json_response({"metadata": {"total_size": 5}})
        return web.Response(status=500)

    async with serving(answer) as url:
        assert (await Repository().read(f"{url}/good"))[1] == {"metadata": {"total_size": 5}}
        assert (await Repository().read(f"{url}/bad"))[1] is None


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (401, "", "it answers 401"),
        (404, "", "there is none"),
        (200, "<html>", "it is no JSON"),
        (200, "[1]", "it is no JSON object"),
        (200, "1" * (SIZE_LIMIT + 2), "it is larger than 4 MiB"),
    ],
)
async def test_what_cannot_be_read_is_told_in_a_few_words(status: int, text: str, says: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    async with serving(answer) as url:
        with pytest.raises(Unread, match=says):
            await Repository().read(f"{url}/x")


async def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(Unread, match="it is not reached"):
        await Repository().read("http://127.0.0.1:9/x")
