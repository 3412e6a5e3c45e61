"""Bad input gets an OpenAI-style error that names what is wrong, and never reaches a pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts.pod_protocol import Failed, Reason
from tandem_runtime.openai.errors import ApiError
from tandem_runtime.openai.schemas import NEUTRAL, ChatRequest, CompletionRequest, parse_body

from tests.runtime.openai.local import ScriptedBackend, running_front

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 1 << 62) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
USER = {"role": "user", "content": "hi"}


async def test_an_error_has_the_fields_that_clients_read_and_the_reason_in_a_header() -> None:
    async with running_front() as local:
        status, answer, headers = await local.post("/v1/chat/completions", b'{"model": "chat",')
        assert status == 400
        assert answer["error"].keys() == {"message", "type", "param", "code"}
        assert headers["x-tandem-reason"] == answer["error"]["code"] == "invalid_json"
        assert "not JSON" in answer["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b'{"model": "chat", "prompt": "\\ud800"}'],
    ids=["empty", "null", "list", "utf16", "nan", "deep", "surrogate"],
)
async def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    async with running_front() as local:
        assert (await local.post("/v1/completions", body))[0] == 400


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"presence_penalty": 2.5}, "presence_penalty", "invalid_value"),
        ({"frequency_penalty": -3}, "frequency_penalty", "invalid_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"min_p": 1.5}, "min_p", "invalid_value"),
        ({"logit_bias": {"65": 101}}, "logit_bias[...]", "invalid_value"),
        ({"logit_bias": {"many": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"263": 1}}, "logit_bias", "invalid_value"),
        ({"stop_token_ids": [263]}, "stop_token_ids", "invalid_value"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens", "invalid_value"),
        ({"best_of": 2}, "best_of", "unsupported_parameter"),
        ({"echo": True}, "echo", "unsupported_parameter"),
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),
        ({"guided_json": {}}, "guided_json", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": True}, "max_tokens", "invalid_value"),
        ({"stop": [""]}, "stop", "invalid_value"),
        ({"stop": ["x"] * 17}, "stop", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"max_tokens": 1 << 64}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 1 << 31}, "max_completion_tokens", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": [], "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": {}, "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_value"),
        ({"messages": [USER, {"role": "wizard", "content": "x"}]}, "messages[1].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "invalid_value"),
        ({"model": None}, "model", "invalid_value"),
    ],
)
async def test_what_is_wrong_or_unsupported_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    # Without a known context length nothing but the parameter's own bound can refuse it.
    async with running_front(ScriptedBackend(max_context_tokens=None)) as local:
        status, answer, _ = await local.chat(**fields)
        assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, param, code)
        assert not local.backend.submits


@pytest.mark.parametrize(
    "prompt", [[], [["a"], "b"], ["a", "b"], [1, "a"], [-1], [263], [1.5], [True], {"a": 1}, [[1], [2]]]
)
async def test_a_prompt_is_one_text_or_one_list_of_known_token_ids(prompt: Any) -> None:
    async with running_front() as local:
        status, answer, _ = await local.complete(prompt=prompt)
        assert (status, answer["error"]["param"]) == (400, "prompt")


async def test_fields_that_ask_for_nothing_or_change_nothing_are_taken() -> None:
    fields = {"n": 1, "tools": [], "logprobs": None, "presence_penalty": 0.0, "user": "me", "metadata": {"a": "b"}}
    async with running_front() as local:
        assert (await local.chat(**fields, response_format={"type": "text"}))[0] == 200


async def test_another_model_is_404_and_says_which_there_is() -> None:
    async with running_front() as local:
        for status, answer, _ in (await local.chat(model="gpt-9"), await local.complete(model="gpt-9")):
            assert (status, answer["error"]["code"], answer["error"]["param"]) == (404, "model_not_found", "model")
            assert "'chat'" in answer["error"]["message"]
        async with local.session.get(local.url + "/v1/models/gpt-9") as response:
            assert response.status == 404


async def test_a_prompt_beyond_the_context_is_refused_with_the_numbers() -> None:
    async with running_front() as local:
        for fields in ({"prompt": "x" * 300}, {"prompt": "x" * 100, "max_tokens": 100}):
            status, answer, _ = await local.complete(**fields)
            assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert "200 tokens, but the prompt has 101 and 100 for the answer" in answer["error"]["message"]
        assert (await local.complete(prompt="x" * 100, max_tokens=99))[0] == 200
        assert (await local.complete(prompt="x" * 194))[0] == 200
        assert local.backend.submits[-1].sampling.max_tokens == 5  # the default yields, what is asked for does not


async def test_a_body_beyond_the_limit_is_413_in_the_same_form() -> None:
    async with running_front(max_body_bytes=1000) as local:
        status, answer, _ = await local.complete(prompt="x" * 2000)
        assert (status, answer["error"]["code"]) == (413, "body_too_large")


async def test_unknown_paths_wrong_methods_and_odd_timeouts_answer_in_the_same_form() -> None:
    async with running_front() as local:
        assert (await local.post("/v1/embeddings", {}))[:1] == (404,)
        async with local.session.get(local.url + "/v1/completions") as response:
            assert response.status == 405
            assert (await response.json())["error"]["code"] == "method_not_allowed"
        for value in ("0", "-1", "soon", "1e3", "9" * 20):
            status, answer, _ = await local.post("/v1/completions", {}, **{"x-tandem-timeout-ms": value})
            assert status == 400
            assert "x-tandem-timeout-ms" in answer["error"]["message"]


async def test_a_refusal_quotes_little_of_what_was_sent_and_the_log_nothing() -> None:
    async with running_front() as local:
        for fields in ({"secret prompt " * 500: 1}, {"model": "secret prompt " * 500}):
            status, answer, _ = await local.complete(**fields)
            assert status in (400, 404)
            assert len(msgspec.json.encode(answer)) < 2500
        assert len(local.records) == 2
        assert not any("secret" in str(record.log_fields()) for record in local.records)


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (Reason.INVALID, 400, "invalid_value"),
        (Reason.CONTEXT_LENGTH, 400, "context_length_exceeded"),
        (Reason.OVERLOADED, 429, "queue_full"),
        (Reason.DRAINING, 503, "draining"),
        (Reason.TIMEOUT, 504, "timeout"),
        (Reason.ENGINE_ERROR, 500, "engine_error"),
    ],
)
async def test_what_a_pod_refuses_has_the_status_of_its_reason(reason: Reason, status: int, code: str) -> None:
    backend = ScriptedBackend(words=[], ending=Failed("", 0, reason.value, "no", retryable=False))
    async with running_front(backend) as local:
        answered, answer, _ = await local.complete()
        assert (answered, answer["error"]["code"]) == (status, code)


async def test_a_body_that_stalls_is_given_up() -> None:
    async def stall() -> AsyncIterator[bytes]:
        yield b'{"model": '
        await asyncio.Event().wait()

    async with running_front(body_seconds=0.05) as local:
        async with local.session.post(local.url + "/v1/completions", data=stall()) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (408, "body_timeout")
        assert local.front.in_flight == 0


@given(st.dictionaries(st.sampled_from([*CompletionRequest.__struct_fields__, *NEUTRAL, "x"]), JSON))
def test_no_body_raises_anything_but_an_error_for_the_client(fields: dict[str, Any]) -> None:
    for kind in (CompletionRequest, ChatRequest):
        with suppress(ApiError):
            parse_body(msgspec.json.encode(fields), kind).stops()
        with suppress(ApiError):
            parse_body(msgspec.json.encode(fields)[:-1], kind)
