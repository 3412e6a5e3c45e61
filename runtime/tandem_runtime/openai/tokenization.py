"""POST /tokenize and /detokenize, as vLLM has them: what a prompt costs, and what ids mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from tandem_runtime.openai.errors import bad_request
from tandem_runtime.openai.prompt import check_ids, check_messages, tokenise_messages
from tandem_runtime.openai.schemas import parse_body, unknown_model
from tandem_runtime.text.tokenizer import LONG_TEXT_CHARACTERS, Tokenizer

Parsed = TypeVar("Parsed")


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """Either `prompt` or `messages`."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = None
    add_special_tokens: bool = True
    """Of a prompt; the chat template decides for messages."""
    return_token_strs: bool = False


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """`tokens` of the model's vocabulary."""

    model: str | None = None
    tokens: list[Any]


class Tokenization:
    """`read` reads a body and applies a parser to it; `let_in` raises ApiError for who may not ask."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        model_name: str,
        max_context_tokens: Callable[[], int | None],
        read: Callable[[web.Request, Callable[[bytes], Parsed]], Awaitable[Parsed]],
        let_in: Callable[[web.Request], None],
    ) -> None:
        self._tokenizer = tokenizer
        self._model_name = model_name
        self._max_context_tokens = max_context_tokens
        self._read: Callable[..., Awaitable[Any]] = read
        self._let_in = let_in

    def add_routes(self, app: web.Application) -> None:
        """Beside the version prefix, where vLLM has them."""
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)

    async def _tokenize(self, request: web.Request) -> web.Response:
        self._let_in(request)
        body: TokenizeRequest = await self._read(request, partial(parse_body, kind=TokenizeRequest))
        self._check_model(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise bad_request("either prompt or messages is needed, and not both", "prompt")
        if body.messages is not None:
            check_messages(body.messages)
            ids = await tokenise_messages(body.messages, self._tokenizer)
        else:
            ids = await self._encode(body.prompt or "", body.add_special_tokens)
        strings = [self._tokenizer.token_bytes(token).decode(errors="replace") for token in ids]
        answer = {
            "count": len(ids),
            "max_model_len": self._max_context_tokens(),
            "tokens": ids,
            "token_strs": strings if body.return_token_strs else None,
        }
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def _encode(self, text: str, special: bool) -> list[int]:
        if len(text) < LONG_TEXT_CHARACTERS:
            return self._tokenizer.encode(text, special)
        return await asyncio.to_thread(self._tokenizer.encode, text, special)

    async def _detokenize(self, request: web.Request) -> web.Response:
        self._let_in(request)
        body: DetokenizeRequest = await self._read(request, partial(parse_body, kind=DetokenizeRequest))
        self._check_model(body.model)
        ids = check_ids(body.tokens, self._tokenizer.vocab_size, "tokens")
        text = await asyncio.to_thread(self._tokenizer.decode, ids)
        return web.Response(body=msgspec.json.encode({"prompt": text}), content_type="application/json")

    def _check_model(self, name: str | None) -> None:
        if name is not None and name != self._model_name:
            raise unknown_model(name, self._model_name)
