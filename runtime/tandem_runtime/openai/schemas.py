"""Bodies of /v1/chat/completions and /v1/completions. A field that would change the answer and is not
supported is refused by name; one that changes nothing (user, metadata, ...) is accepted and ignored."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from tandem_runtime.openai.errors import ApiError, bad_request

MAX_STOPS: Final = 16
MAX_STOP_CHARACTERS: Final = 256
"""More would make every step of the detokeniser slow; OpenAI allows 4 strings."""
Tokens = Annotated[int, Meta(ge=1, lt=1 << 31)]
"""Bounded, so that it fits a message to a pod also while no context length is known."""


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """`include_usage` adds a last chunk with the token counts."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Common(msgspec.Struct, kw_only=True):
    """What both bodies share. None means that the client left the field out."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, lt=1 << 31)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None

    def stops(self) -> list[str]:
        """Stop strings as a list. Raises ApiError."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MAX_STOPS:
            raise bad_request(f"stop has {len(stops)} strings; allowed are at most {MAX_STOPS}", "stop")
        for stop in stops:
            if not 0 < len(stop) <= MAX_STOP_CHARACTERS:
                raise bad_request(
                    f"a stop string has {len(stop)} characters; allowed are 1 to {MAX_STOP_CHARACTERS}", "stop"
                )
        return stops


class ChatRequest(Common):
    """POST /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: Tokens | None = None


class CompletionRequest(Common):
    """POST /v1/completions. One prompt a request: text or token ids, also as a list of one."""

    prompt: str | list[Any]


IGNORED: Final = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
)
"""They say who asks or where to file it; the tokens stay the same."""

NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
}
"""Known fields without support, and the values that ask for nothing (null always does)."""

Body = TypeVar("Body", bound=Common)
PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)


def parse_body(raw: bytes, kind: type[Body]) -> Body:
    """Raises ApiError (400) that names the field."""
    fields = parse_object(raw)
    known = kind.__struct_fields__
    for name, value in fields.items():
        if name not in known and name not in IGNORED and value is not None:
            check_neutral(name, value)
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        match = PATH.match(str(error))
        what, path = (match["what"], match["path"]) if match else (str(error), None)
        missing = re.search(r"missing required field `(\w+)`", what)
        param = missing[1] if missing else path or None
        message = f"{param} is missing" if missing else f"{param}: {what}" if param else what
        raise bad_request(message, param) from error


def parse_object(raw: bytes) -> dict[str, Any]:
    """Raises ApiError (400) when `raw` is not one JSON object."""
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"the request body is not JSON: {error}", code="invalid_json") from error
    except RecursionError as error:
        raise bad_request("the request body is nested too deeply", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise bad_request(f"the request body is a JSON {type(fields).__name__}; expected is an object")
    return fields


def check_neutral(name: str, value: Any) -> None:
    """Raises ApiError (400) when the field asks for something that is not there."""
    if name not in NEUTRAL:
        raise bad_request(f"unknown parameter {name!r}; leave it out", name, "unknown_parameter")
    # Values of one type only: False == 0 in Python, and `logprobs: 0` of a completion does ask for log-probabilities.
    if not any(value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in NEUTRAL[name]):
        raise bad_request(f"{name} is not supported by this server; leave it out", name, "unsupported_parameter")


def unknown_model(name: str, served: str) -> ApiError:
    """404 that says which model there is."""
    return ApiError(
        404, f"the model {name!r} does not exist; this server has {served!r}", code="model_not_found", param="model"
    )
