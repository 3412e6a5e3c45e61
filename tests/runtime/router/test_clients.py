"""The official client, sync and async, and curl, unchanged, against the router and its pods."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import msgspec
import openai
import pytest
from tandem_runtime.openai.front import FrontSettings

from tests.runtime.router.fake_pod import FakePod
from tests.runtime.router.harness import MODEL, Harness, eventually, running_router
from tests.runtime.router.test_routing import expected_text

MESSAGES: Any = [{"role": "user", "content": "hi"}]


def sync_client(router: Harness, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=router.url + "/v1", api_key="none", **{"max_retries": 0, **options})


def async_client(router: Harness, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=router.url + "/v1", api_key="none", **{"max_retries": 0, **options})


async def curl(*words: str) -> tuple[int, bytes]:
    """Exit code and what it printed."""
    assert shutil.which("curl"), "curl is not installed; on Debian: apt-get install -y curl"
    process = await asyncio.create_subprocess_exec("curl", "-sS", *words, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(30):
        printed, _ = await process.communicate()
    return process.returncode or 0, printed


async def test_the_synchronous_client_completes_streams_and_raises() -> None:
    async with running_router(FakePod("d0")) as router:

        def use() -> None:
            with sync_client(router) as client:
                whole = client.completions.create(model=MODEL, prompt="hello", max_tokens=12)
                assert whole.choices[0].text == expected_text("hello", 12)
                pieces = client.completions.create(model=MODEL, prompt="hello", max_tokens=12, stream=True)
                assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
                chat = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=9, stream=True)
                assert [chunk.choices[0].finish_reason for chunk in chat][-1] == "length"
                with pytest.raises(openai.NotFoundError, match="gpt-9"):
                    client.completions.create(model="gpt-9", prompt="hello")
                with pytest.raises(openai.BadRequestError, match="context is 4096 tokens"):
                    client.completions.create(model=MODEL, prompt="hello", max_tokens=5000)

        await asyncio.to_thread(use)


async def test_a_client_that_leaves_its_stream_frees_the_pod_at_once() -> None:
    pod = FakePod("d0", token_seconds=0.01)
    async with running_router(pod) as router, async_client(router) as client:
        stream = await client.completions.create(model=MODEL, prompt="hello", max_tokens=4000, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await eventually(lambda: len(pod.cancels) == 1)
        await eventually(lambda: not router.app.backend._flights)


async def test_a_client_that_gives_up_a_whole_answer_frees_the_pod_too() -> None:
    pod = FakePod("d0", token_seconds=0.01)
    async with running_router(pod) as router, async_client(router, timeout=0.3) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.completions.create(model=MODEL, prompt="hello", max_tokens=4000)
        await eventually(lambda: len(pod.cancels) == 1)


async def test_the_client_s_own_retries_follow_our_retry_after() -> None:
    """Too much at once is answered with Retry-After; the official client waits and comes again."""
    pod = FakePod("d0")
    settings = FrontSettings(MODEL, max_bodies_bytes=100)
    async with running_router(pod, front=settings) as router, async_client(router, max_retries=2) as client:
        bodies = router.app.front._bodies
        bodies.held_bytes = 1000

        def free() -> None:
            bodies.held_bytes = 0

        asyncio.get_running_loop().call_later(0.2, free)
        answer = await client.completions.create(model=MODEL, prompt="hello", max_tokens=5)
        assert answer.choices[0].text == expected_text("hello", 5)


async def test_curl_gets_answers_and_streams_also_over_http_1_0() -> None:
    async with running_router(FakePod("d0")) as router:
        url, json_type = router.url + "/v1/completions", "Content-Type: application/json"
        body = {"model": MODEL, "prompt": "hello", "max_tokens": 12}
        code, printed = await curl(url, "-H", json_type, "-d", msgspec.json.encode(body).decode())
        assert code == 0
        assert msgspec.json.decode(printed)["choices"][0]["text"] == expected_text("hello", 12)
        streaming = msgspec.json.encode({**body, "stream": True}).decode()
        for version in ("--http1.1", "--http1.0"):
            code, printed = await curl(version, "-N", url, "-H", json_type, "-d", streaming)
            events = printed.split(b"\n\n")
            assert (code, events[-2:]) == (0, [b"data: [DONE]", b""])
            chunks = [msgspec.json.decode(event.removeprefix(b"data: ")) for event in events[:-2]]
            assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == expected_text("hello", 12)
        code, printed = await curl(url, "--fail-with-body", "-d", "{}")
        assert code == 22
        assert b"is missing" in printed
