"""From a parsed body to what pods take: prompt ids, sampling, stop strings. The only user of the tokenizer here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tandem_runtime.contracts.sampling import Sampling, sampling_complaint
from tandem_runtime.openai.errors import bad_request
from tandem_runtime.openai.schemas import ChatRequest, CompletionRequest
from tandem_runtime.text.messages import ChatTemplateError
from tandem_runtime.text.tokenizer import LONG_TEXT_CHARACTERS, Tokenizer

COMPLETION_MAX_TOKENS: Final = 16
"""OpenAI's default of /v1/completions."""
CHAT_TEMPERATURE: Final = 1.0
"""OpenAI's default of both."""
UNKNOWN_CONTEXT_MAX_TOKENS: Final = 4096
"""Answer length of a chat that names none while no pod has told its context length yet."""
MESSAGE_CHARACTERS: Final = 64
"""What rendering a message costs beside its text, in characters of text."""
ROLES: Final = frozenset({"system", "developer", "user", "assistant"})


@dataclass(frozen=True, slots=True)
class Generation:
    """What the client wants, free of HTTP and text."""

    prompt_ids: list[int]
    sampling: Sampling
    stop: list[str]


async def build_generation(
    body: ChatRequest | CompletionRequest,
    tokenizer: Tokenizer,
    max_context_tokens: int | None,
    make_seed: Callable[[], int],
) -> Generation:
    """Raises ApiError (400) for a prompt that is malformed or too long."""
    if isinstance(body, ChatRequest):
        check_messages(body.messages)
        prompt_ids = await tokenise_messages(body.messages, tokenizer)
        asked, default = body.max_completion_tokens or body.max_tokens, None
    else:
        prompt_ids = await tokenise_prompt(body.prompt, tokenizer)
        asked, default = body.max_tokens, COMPLETION_MAX_TOKENS
    max_tokens = fit_output(len(prompt_ids), asked, default, max_context_tokens)
    return Generation(prompt_ids, make_sampling(body, max_tokens, tokenizer.vocab_size, make_seed), body.stops())


def make_sampling(
    body: ChatRequest | CompletionRequest, max_tokens: int, vocab_size: int, make_seed: Callable[[], int]
) -> Sampling:
    """Raises ApiError (400) for token ids outside the vocabulary and for a least length above the largest."""
    temperature = CHAT_TEMPERATURE if body.temperature is None else body.temperature
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=max(body.top_k or 0, 0),
        top_p=1.0 if body.top_p is None else body.top_p,
        min_p=body.min_p or 0.0,
        seed=(make_seed() if temperature else 0) if body.seed is None else body.seed & ((1 << 63) - 1),
        ignore_eos=bool(body.ignore_eos),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        logit_bias=body.biases(vocab_size) if body.logit_bias else (),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        min_tokens=body.min_tokens or 0,
        logprobs=body.wanted_logprobs(),
    )
    problem = sampling_complaint(sampling, vocab_size)
    if problem:
        raise bad_request(problem, problem.split()[0])
    return sampling


def fit_output(prompt_tokens: int, asked: int | None, default: int | None, max_context_tokens: int | None) -> int:
    """Output tokens to allow; `default` (None: all there is) yields to a smaller context, what is asked for does not.

    Raises ApiError when prompt and output do not fit the context.
    """
    if prompt_tokens == 0:
        raise bad_request("the prompt is empty; at least one token is needed", "prompt")
    if max_context_tokens is None:
        return asked or default or UNKNOWN_CONTEXT_MAX_TOKENS
    room = max_context_tokens - prompt_tokens
    if room < (asked or 1):
        output = f" and {asked} for the answer" if asked else ", which leaves none for the answer"
        raise bad_request(
            f"this model's context is {max_context_tokens} tokens, but the prompt has {prompt_tokens}{output}; "
            "shorten the prompt or lower max_tokens",
            code="context_length_exceeded",
        )
    return asked or min(default or room, room)


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Raises ApiError naming the message that the chat template would not understand."""
    for index, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or role not in ROLES:
            known = ", ".join(sorted(ROLES))
            raise bad_request(f"role {role!r} is not supported; known are {known}", f"messages[{index}].role")
        if message.get("tool_calls") or message.get("function_call"):
            raise bad_request("tool calls are not supported", f"messages[{index}].tool_calls", "unsupported_parameter")
        if not isinstance(content, str | list):
            raise bad_request(
                f"content is {type(content).__name__}; expected is a string or a list of text parts",
                f"messages[{index}].content",
            )


async def tokenise_messages(messages: list[dict[str, Any]], tokenizer: Tokenizer) -> list[int]:
    """Raises ApiError when the template refuses the messages."""
    try:
        contents = [message["content"] for message in messages]
        lengths = [len(text) if isinstance(text, str) else LONG_TEXT_CHARACTERS for text in contents]
        if sum(lengths) + MESSAGE_CHARACTERS * len(messages) < LONG_TEXT_CHARACTERS:
            return tokenizer.apply_chat_template(messages)
        return await asyncio.to_thread(tokenizer.apply_chat_template, messages)
    except ChatTemplateError as error:
        raise bad_request(str(error), "messages") from error


async def tokenise_prompt(prompt: str | list[Any], tokenizer: Tokenizer) -> list[int]:
    """Text, token ids, or a list of one of them. Raises ApiError."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        if len(prompt) > 1:
            raise bad_request(
                f"prompt is a list of {len(prompt)} prompts; send one request for each", "prompt", "unsupported_value"
            )
        prompt = prompt[0]
    if isinstance(prompt, str):
        if len(prompt) < LONG_TEXT_CHARACTERS:
            return tokenizer.encode(prompt)
        return await asyncio.to_thread(tokenizer.encode, prompt)
    if len(prompt) < LONG_TEXT_CHARACTERS:
        return check_ids(prompt, tokenizer.vocab_size)
    return await asyncio.to_thread(check_ids, prompt, tokenizer.vocab_size)


def check_ids(ids: list[Any], vocab_size: int, field: str = "prompt") -> list[int]:
    """`ids` when all are of the vocabulary. Raises ApiError."""
    for token_id in ids:
        if type(token_id) is not int or not 0 <= token_id < vocab_size:
            raise bad_request(f"{token_id!r:.40} is not a token id from 0 to {vocab_size - 1}", field)
    return ids
