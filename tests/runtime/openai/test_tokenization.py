"""/tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

import pytest
from tandem_runtime.text.byte_tokenizer import BOS, ByteTokenizer

from tests.runtime.openai.local import running_front


async def test_a_prompt_and_its_ids_are_each_others_inverse() -> None:
    async with running_front() as local:
        status, answer, _ = await local.post(
            "/tokenize", {"model": "chat", "prompt": "Grüß", "return_token_strs": True}
        )
        assert (status, answer["count"], answer["max_model_len"]) == (200, 7, 200)
        assert answer["tokens"] == [BOS, *"Grüß".encode()]
        assert answer["token_strs"][1:3] == ["G", "r"]
        status, text, _ = await local.post("/detokenize", {"tokens": answer["tokens"]})
        assert (status, text) == (200, {"prompt": "Grüß"})
        _, bare, _ = await local.post("/tokenize", {"prompt": "x", "add_special_tokens": False})
        assert bare["tokens"] == [120]


async def test_messages_count_as_the_chat_template_writes_them() -> None:
    messages = [{"role": "user", "content": "hi"}]
    async with running_front() as local:
        status, answer, _ = await local.post("/tokenize", {"messages": messages})
    assert (status, answer["tokens"]) == (200, ByteTokenizer().apply_chat_template(messages))


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": [{"role": "user", "content": "hi"}]}, "prompt"),
        ("/tokenize", {"prompt": ["x"]}, "prompt"),
        ("/tokenize", {"messages": [{"role": "wizard", "content": "hi"}]}, "messages[0].role"),
        ("/tokenize", {"prompt": "x", "colour": "red"}, "colour"),
        ("/detokenize", {"tokens": [1, 263]}, "tokens"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"model": "other", "tokens": [1]}, "model"),
    ],
)
async def test_what_is_wrong_is_named(path: str, body: dict[str, Any], param: str) -> None:
    async with running_front() as local:
        status, answer, _ = await local.post(path, body)
    assert status == (404 if param == "model" else 400)
    assert answer["error"]["param"] == param
