"""Bodies of /v1/chat/completions and /v1/completions. A field that would change the answer and is not
supported is refused by name; one that changes nothing (user, metadata, ...) is accepted and ignored."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from tandem_runtime.contracts.sampling import MOST_BIAS, MOST_LOGPROBS, MOST_STOP_TOKENS
from tandem_runtime.openai.errors import ApiError, bad_request

MAX_STOPS: Final = 16
MAX_STOP_CHARACTERS: Final = 256
"""More would make every step of the detokeniser slow; OpenAI allows 4 strings."""
MOST_CHOICES: Final = 128
"""OpenAI's limit of n; each choice is a request of its own for the queue."""
MOST_BIASES: Final = 1024
"""OpenAI allows 300, vLLM 1024."""
Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenId = Annotated[int, Meta(ge=0, lt=1 << 31)]
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
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MOST_STOP_TOKENS)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Meta(ge=0, lt=1 << 31)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-MOST_BIAS, le=MOST_BIAS)]] | None = None

    def wanted_logprobs(self) -> int | None:
        """None: no log probabilities; n: those of the tokens and of n alternatives. Raises ApiError."""
        return None

    def biases(self, vocab_size: int) -> tuple[tuple[int, float], ...]:
        """logit_bias in order of the ids. Raises ApiError."""
        biases = self.logit_bias or {}
        if len(biases) > MOST_BIASES:
            raise bad_request(f"logit_bias has {len(biases)} tokens; allowed are at most {MOST_BIASES}", "logit_bias")
        for name in biases:
            if not (name.isascii() and name.isdigit() and len(name) < 10 and int(name) < vocab_size):
                raise bad_request(f"logit_bias: {name[:40]!r} is not a token id below {vocab_size}", "logit_bias")
        return tuple(sorted({int(name): bias for name, bias in biases.items()}.items()))

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
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS)] | None = None

    def wanted_logprobs(self) -> int | None:
        """top_logprobs, where logprobs is true."""
        if self.top_logprobs and not self.logprobs:
            raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
        return self.top_logprobs or 0 if self.logprobs else None


class CompletionRequest(Common):
    """POST /v1/completions. One prompt a request: text or token ids, also as a list of one."""

    prompt: str | list[Any]
    logprobs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS)] | None = None

    def wanted_logprobs(self) -> int | None:
        """0 asks for the tokens' own alone."""
        return self.logprobs


IGNORED: Final = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
)
"""They say who asks or where to file it; the tokens stay the same."""

NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "prompt_logprobs": (0, False),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "logits_processors": ([],),
    "prediction": (),
    "audio": (),
    "web_search_options": (),
    "verbosity": ("medium",),
}
"""Known fields without support, and the values that ask for nothing (null always does)."""

ADVICE: Final = {
    "best_of": "ask for n choices with logprobs and choose among them",
    "echo": "put the prompt before the answer yourself; /tokenize shows its tokens",
    "suffix": "send prompts for insertion in the model's own format",
    "response_format": "answers are plain text; ask for the format in the prompt and check the answer",
    "tools": "describe the tools in the prompt and parse the answer",
}
"""Instead of leaving it out."""

Body = TypeVar("Body", bound=msgspec.Struct)
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
        advice = ADVICE.get(name, "leave it out")
        raise bad_request(f"{name} is not supported by this server; {advice}", name, "unsupported_parameter")


def unknown_model(name: str, served: str) -> ApiError:
    """404 that says which model there is."""
    return ApiError(
        404, f"the model {name!r} does not exist; this server has {served!r}", code="model_not_found", param="model"
    )
