"""A feed: complete after the list, exact through watches that end, expire and fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tandem_operator.cluster.feed import Feed, follow
from tandem_operator.cluster.objects import Pod
from tandem_operator.config import InventorySettings
from tandem_operator.reconcile.errors import ApiError

from tests.operator.cluster.fake_source import FakeSource


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def body(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels, "resourceVersion": "1"}}


@asynccontextmanager
async def following(source: FakeSource, seen: dict[str, dict[str, str]]) -> AsyncIterator[list[float]]:
    def put(item: Pod) -> None:
        seen[item.metadata.name] = item.metadata.labels

    def keep_only(names: set[str]) -> None:
        for name in seen.keys() - names:
            del seen[name]

    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    feed = Feed(kind="Pod", type=Pod, put=put, remove=lambda item: seen.pop(item.metadata.name), listed=keep_only)
    task = asyncio.create_task(follow(source, feed, InventorySettings(), sleep))
    async with asyncio.timeout(10):
        await feed.synced.wait()
    yield pauses
    task.cancel()


async def test_a_list_of_many_pages_is_complete_and_changes_follow() -> None:
    source, seen = FakeSource(), dict[str, dict[str, str]]()
    for name in "abcde":
        source.add("Pod", body(name))
    async with following(source, seen):
        assert seen.keys() == set("abcde")
        source.add("Pod", body("f"))
        source.add("Pod", body("a", changed="yes"))
        source.delete("Pod", "b")
        await until(lambda: "b" not in seen)
        assert seen.keys() == set("acdef")
        assert seen["a"] == {"changed": "yes"}


async def test_a_watch_that_the_server_ends_goes_on_where_it_was() -> None:
    source, seen = FakeSource(), dict[str, dict[str, str]]()
    source.add("Pod", body("a"))
    async with following(source, seen):
        source.add("Pod", body("b"))
        source.events["Pod"].put_nowait({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}})
        source.end_watch("Pod")
        await until(lambda: [what for what, _, _ in source.asked].count("watch") == 2)
    assert [what for what, _, _ in source.asked].count("list") == 1
    assert source.asked[-1][2]["resourceVersion"] == "77"


async def test_after_an_expired_watch_what_went_unheard_is_gone() -> None:
    source, seen = FakeSource(), dict[str, dict[str, str]]()
    for name in "abc":
        source.add("Pod", body(name))
    async with following(source, seen) as pauses:
        source.lose("Pod", "b")
        source.expire("Pod")
        await until(lambda: "b" not in seen)
        assert seen.keys() == set("ac")
        assert pauses == []


async def test_errors_back_off_and_end_nothing() -> None:
    source, seen = FakeSource(), dict[str, dict[str, str]]()
    source.failures["Pod"] = [ApiError(403, "may not list pods")] * 7
    source.add("Pod", body("a"))
    async with following(source, seen) as pauses:
        assert seen.keys() == {"a"}
        assert pauses == [2, 4, 8, 16, 32, 60, 60]


async def test_a_line_that_is_no_event_is_an_error_like_any_other() -> None:
    source, seen = FakeSource(), dict[str, dict[str, str]]()
    async with following(source, seen) as pauses:
        source.events["Pod"].put_nowait({"type": "ADDED", "object": {"metadata": "nonsense"}})
        await until(lambda: pauses == [2])
        source.add("Pod", body("a"))
        await until(lambda: "a" in seen)


async def test_who_may_list_but_not_watch_lists_ever_less_often() -> None:
    source, seen = FakeSource(), dict[str, dict[str, str]]()
    async with following(source, seen) as pauses:
        for count in range(1, 5):
            source.events["Pod"].put_nowait({"type": "ERROR", "object": {"code": 403, "message": "may not watch"}})
            await until(lambda count=count: len(pauses) == count)  # type: ignore[misc]
        assert pauses == [2, 4, 8, 16]
        source.end_watch("Pod")
        await until(lambda: [what for what, _, _ in source.asked].count("watch") == 6)
        source.events["Pod"].put_nowait({"type": "ERROR", "object": {"code": 500, "message": "once"}})
        await until(lambda: len(pauses) == 5)
        assert pauses[-1] == 2
