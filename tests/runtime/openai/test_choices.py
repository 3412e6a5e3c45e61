"""Several choices, log probabilities and every way to sample, through the two APIs and the official client."""

from __future__ import annotations

from typing import Any

import msgspec
import openai
import pytest
from tandem_runtime.contracts.pod_protocol import Failed
from tandem_runtime.contracts.sampling import Sampling, choice_seed

from tests.runtime.openai.local import LocalFront, ScriptedBackend, running_front


async def read_events(local: LocalFront, path: str, **fields: Any) -> list[dict[str, Any]]:
    """The parsed events of a stream; the last line must be [DONE]."""
    body = msgspec.json.encode({"model": "chat", "stream": True, **fields})
    async with local.session.post(local.url + path, data=body) as response:
        assert response.status == 200
        lines = [line for line in (await response.text()).split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [msgspec.json.decode(line.removeprefix("data: ")) for line in lines[:-1]]


async def test_each_choice_is_a_request_of_its_own_with_its_own_seed() -> None:
    async with running_front() as local:
        status, answer, _ = await local.chat(n=3, seed=17)
    assert status == 200
    assert [(choice["index"], choice["finish_reason"]) for choice in answer["choices"]] == [
        (i, "stop") for i in range(3)
    ]
    assert {choice["message"]["content"] for choice in answer["choices"]} == {'Hello wörld "quoted"\n'}
    assert [submit.sampling.seed for submit in local.backend.submits] == [choice_seed(17, index) for index in range(3)]
    prompt_tokens = len(local.backend.submits[0].prompt_ids)
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (prompt_tokens, 18)
    assert [record.output_tokens for record in local.records] == [6, 6, 6]
    assert len({record.submit_id for record in local.records}) == 3


async def test_the_first_of_many_choices_is_the_answer_that_there_is_without_n() -> None:
    async with running_front() as local:
        await local.chat(seed=17)
        await local.chat(seed=17, n=2)
    alone, first, _ = local.backend.submits
    assert (alone.sampling, alone.prompt_ids) == (first.sampling, first.prompt_ids)


async def test_a_stream_of_many_choices_tells_them_apart_and_ends_once() -> None:
    async with running_front() as local:
        events = await read_events(
            local,
            "/v1/chat/completions",
            n=2,
            messages=[{"role": "user", "content": "hi"}],
            stream_options={"include_usage": True},
        )
    texts = ["", ""]
    for event in events[:-1]:
        [choice] = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == ['Hello wörld "quoted"\n'] * 2
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 12
    assert [record.status for record in local.records] == [200, 200]


async def test_when_one_choice_fails_the_answer_fails_and_every_choice_is_counted_so() -> None:
    failed = Failed("", 0, "no_pod", "nobody is there", False)
    async with running_front(ScriptedBackend(words=[], ending=failed)) as local:
        status, answer, _ = await local.chat(n=3)
    assert (status, answer["error"]["code"]) == (503, "no_pod")
    assert [record.status for record in local.records] == [503] * 3


async def test_a_client_that_leaves_ends_all_choices() -> None:
    async with running_front(ScriptedBackend(hang_at=1)) as local:
        body = {"model": "chat", "prompt": "hi", "n": 3, "stream": True}
        async with local.session.post(local.url + "/v1/completions", json=body) as response:
            await response.content.readany()
            response.close()
        for _ in range(200):
            if len(local.records) == 3:
                break
            await local.session.get(local.url + "/health")
    assert len(local.backend.cancelled) == 3
    assert [record.status for record in local.records] == [499] * 3


async def test_chat_shows_log_probabilities_with_bytes_and_alternatives() -> None:
    async with running_front() as local:
        status, answer, _ = await local.chat(logprobs=True, top_logprobs=2)
        assert status == 200
        [choice] = answer["choices"]
        entry = choice["logprobs"]["content"][0]
        assert len(choice["logprobs"]["content"]) == 6
        assert {key: entry[key] for key in ("token", "logprob", "bytes")} == {
            "token": "H",
            "logprob": -0.25,
            "bytes": [72],
        }
        assert [each["token"] for each in entry["top_logprobs"]] == ["A", "B"]
        _, answer, _ = await local.chat(logprobs=True)
        assert answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert [(submit.want_logprobs, submit.sampling.logprobs) for submit in local.backend.submits] == [(3, 2), (1, 0)]


async def test_completions_show_log_probabilities_in_their_own_form() -> None:
    async with running_front() as local:
        _, answer, _ = await local.complete(logprobs=2)
        logprobs = answer["choices"][0]["logprobs"]
        events = await read_events(local, "/v1/completions", prompt="hi", logprobs=0)
    assert logprobs["tokens"] == ["H", "i"] * 3
    assert logprobs["token_logprobs"] == [-0.25, -0.5] * 3
    assert logprobs["text_offset"] == list(range(6))
    assert logprobs["top_logprobs"][0] == {"A": -0.5, "B": -1.5}
    shown = [event["choices"][0]["logprobs"] for event in events if event["choices"][0]["logprobs"]]
    assert [each["text_offset"] for each in shown] == [[0, 1], [2, 3], [4, 5]]
    assert shown[0]["top_logprobs"] is None


async def test_every_field_of_sampling_arrives_at_the_pods() -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.1,
        "seed": 3,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "repetition_penalty": 1.1,
        "logit_bias": {"70": 2, "9": -100},
        "stop_token_ids": [7],
        "min_tokens": 2,
        "ignore_eos": True,
    }
    async with running_front() as local:
        status, answer, _ = await local.chat(max_completion_tokens=9, **fields)
        assert status == 200, answer
    biases = ((9, -100.0), (70, 2.0))
    assert local.backend.submits[0].sampling == Sampling(
        9, 0.5, 5, 0.9, 3, True, 0.1, 0.5, -0.5, 1.1, biases, (7,), min_tokens=2, logprobs=None
    )


async def test_the_official_client_reads_choices_and_log_probabilities() -> None:
    async with running_front() as local:
        client = openai.AsyncOpenAI(base_url=f"{local.url}/v1", api_key="none", max_retries=0)
        whole = await client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "hi"}], n=2, logprobs=True, top_logprobs=1
        )
        assert [choice.index for choice in whole.choices] == [0, 1]
        assert whole.choices[1].logprobs is not None
        assert whole.choices[1].logprobs.content is not None
        assert whole.choices[1].logprobs.content[1].top_logprobs[0].token == "A"
        seen = 0
        async for chunk in await client.completions.create(
            model="chat", prompt="hi", n=2, logprobs=1, stream=True, logit_bias={"65": -100}
        ):
            for choice in chunk.choices:
                seen += len(choice.logprobs.tokens or []) if choice.logprobs else 0
        assert seen == 12
        with pytest.raises(openai.BadRequestError, match="choose among them"):
            await client.completions.create(model="chat", prompt="hi", best_of=3)
        await client.close()
