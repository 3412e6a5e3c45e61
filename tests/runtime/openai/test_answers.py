"""Answers, whole and streamed, as the official client and a raw socket see them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import openai
import pytest
from tandem_runtime.contracts.pod_protocol import Failed
from tandem_runtime.contracts.sampling import Sampling

from tests.runtime.openai.local import LocalFront, ScriptedBackend, running_front

TEXT = 'Hello wörld "quoted"\n'
MESSAGES: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
]


def official(local: LocalFront) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=local.url + "/v1", api_key="none", max_retries=0)


async def raw_events(local: LocalFront, path: str, body: dict[str, Any]) -> list[bytes]:
    async with local.session.post(local.url + path, json=body) as response:
        assert response.content_type == "text/event-stream"
        return (await response.read()).split(b"\n\n")


async def test_the_official_client_chats_streams_completes_and_lists_models() -> None:
    async with running_front() as local, official(local) as client:
        chat = await client.chat.completions.create(model="chat", messages=MESSAGES)
        assert chat.choices[0].message.content == TEXT
        assert chat.choices[0].finish_reason == "stop"
        assert chat.usage is not None
        assert chat.usage.completion_tokens == 6
        stream = await client.chat.completions.create(
            model="chat", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage == chat.usage
        completion = await client.completions.create(model="chat", prompt="hi")
        assert completion.choices[0].text == TEXT
        pieces = await client.completions.create(model="chat", prompt=[1, 2, 3], stream=True)
        assert "".join([piece.choices[0].text async for piece in pieces]) == TEXT
        assert local.backend.submits[-1].prompt_ids == [1, 2, 3]
        models = (await client.models.list()).data
        assert [model.id for model in models] == ["chat"]
        assert (await client.models.retrieve("chat")).owned_by == "tandem"


async def test_the_official_client_raises_its_own_errors() -> None:
    async with running_front() as local, official(local) as client:
        with pytest.raises(openai.NotFoundError, match="gpt-9"):
            await client.chat.completions.create(model="gpt-9", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError, match="suffix is not supported"):
            await client.completions.create(model="chat", prompt="hi", suffix="end")
        local.backend.words, local.backend.ending = [], Failed("", 0, "no_pod", "none came", retryable=False)
        with pytest.raises(openai.InternalServerError, match="none came"):
            await client.chat.completions.create(model="chat", messages=MESSAGES)
        local.backend.words = ["a"]
        stream = await client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="none came"):
            [chunk async for chunk in stream]


async def test_every_chunk_is_whole_json_and_the_stream_ends_with_done() -> None:
    async with running_front() as local:
        for path, more in (("/v1/completions", {"prompt": "hi"}), ("/v1/chat/completions", {"messages": MESSAGES})):
            body = {"model": "chat", "stream": True, **more}
            plain = await raw_events(local, path, body)
            assert plain[-2:] == [b"data: [DONE]", b""]
            chunks = [msgspec.json.decode(event.removeprefix(b"data: ")) for event in plain[:-2]]
            assert len({(chunk["id"], chunk["object"], chunk["created"]) for chunk in chunks}) == 1
            assert all("usage" not in chunk for chunk in chunks)
            counted = await raw_events(local, path, {**body, "stream_options": {"include_usage": True}})
            usages = [msgspec.json.decode(event.removeprefix(b"data: "))["usage"] for event in counted[:-2]]
            assert set(usages[:-1][0:1]) == {None}
            assert usages[-1]["completion_tokens"] == 6


async def test_what_the_client_asks_for_is_what_the_pod_gets() -> None:
    async with running_front() as local:
        await local.complete(temperature=0.5, top_p=0.9, top_k=-1, seed=-1, max_tokens=9, stop="x", ignore_eos=True)
        submit = local.backend.submits[-1]
        assert submit.sampling == Sampling(9, 0.5, 0, 0.9, (1 << 63) - 1, ignore_eos=True)
        assert submit.stop == ["x"]
        assert 599_000 < submit.remaining_ms <= 600_000
        await local.chat()
        assert local.backend.submits[-1].sampling == Sampling(
            200 - len(local.backend.submits[-1].prompt_ids), 1.0, 0, 1.0, 1234
        )
        await local.chat(max_tokens=5, max_completion_tokens=4, temperature=0)
        assert local.backend.submits[-1].sampling == Sampling(4)


async def test_a_failure_before_the_first_token_has_its_status_and_one_after_it_is_the_last_event() -> None:
    backend = ScriptedBackend(words=[], ending=Failed("", 0, "queue_full", "2 wait already", retryable=False))
    async with running_front(backend) as local:
        status, answer, headers = await local.chat(stream=True)
        assert (status, answer["error"]["code"], headers["Retry-After"]) == (429, "queue_full", "1")
        backend.words = ["Hel"]
        events = await raw_events(local, "/v1/completions", {"model": "chat", "prompt": "hi", "stream": True})
        assert msgspec.json.decode(events[-2].removeprefix(b"data: "))["error"]["code"] == "queue_full"
        assert b"[DONE]" not in b"".join(events)
        assert [record.status for record in local.records] == [429, 429]


async def test_a_timeout_says_how_far_it_came_and_cancels_below() -> None:
    async with running_front(ScriptedBackend(hang_at=1)) as local:
        status, answer, _ = await local.post(
            "/v1/completions", {"model": "chat", "prompt": "hi"}, **{"x-tandem-timeout-ms": "50"}
        )
        assert (status, answer["error"]["code"]) == (504, "timeout")
        assert "timeout of 0.05 s passed after 2 output tokens" in answer["error"]["message"]
        assert local.backend.cancelled == [local.backend.submits[0].id]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_below_and_is_recorded(stream: bool) -> None:
    async with running_front(ScriptedBackend(hang_at=2)) as local:
        request = asyncio.create_task(local.complete(stream=stream))
        async with asyncio.timeout(5):
            while not local.records:
                if local.backend.submits:
                    await asyncio.sleep(0.02)
                    request.cancel()
                await asyncio.sleep(0.005)
        assert local.backend.cancelled == [local.backend.submits[0].id]
        assert (local.records[0].status, local.records[0].reason) == (499, "client_gone")


async def test_the_request_id_of_the_client_comes_back_and_pods_see_a_unique_one() -> None:
    async with running_front() as local:
        body = {"model": "chat", "prompt": "hi"}
        for _ in range(2):
            _, answer, headers = await local.post("/v1/completions", body, **{"x-request-id": "mine"})
            assert (headers["x-request-id"], answer["id"]) == ("mine", "cmpl-mine")
        first, second = local.backend.submits
        assert first.id != second.id
        _, _, headers = await local.post("/v1/completions", body, **{"x-request-id": "no spaces, please"})
        assert len(headers["x-request-id"]) == 24


async def test_while_draining_requests_are_served_and_connections_closed() -> None:
    async with running_front() as local:
        local.front.draining = True
        status, _, headers = await local.chat()
        assert (status, headers["Connection"]) == (200, "close")


async def test_an_error_of_our_own_is_500_without_inner_details() -> None:
    class Broken(ScriptedBackend):
        def submit(self, request: Any, sink: Any, lane: Any = None) -> None:
            raise KeyError("secret")

    async with running_front(Broken()) as local:
        status, answer, _ = await local.chat()
        assert (status, answer["error"]["code"]) == (500, "internal_error")
        assert "secret" not in answer["error"]["message"]


async def test_an_answer_that_cannot_be_written_ends_by_itself_and_never_in_the_pod_s_connection() -> None:
    backend = ScriptedBackend(words=["fine", "lone \ud800 surrogate", "more"], steps=True)
    async with running_front(backend) as local:
        events = await raw_events(local, "/v1/completions", {"model": "chat", "prompt": "hi", "stream": True})
        assert b"fine" in events[0]
        assert msgspec.json.decode(events[-2].removeprefix(b"data: "))["error"]["code"] == "internal_error"
        assert backend.cancelled == [backend.submits[0].id]
