"""Answer bodies: one JSON object, or server-sent events encoded by hand (one bytes object for each delta)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tandem_runtime.contracts.pod_protocol import Delta

DONE: Final = b"data: [DONE]\n\n"

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every chunk and the whole answer of one request repeat. `created` is in seconds since the epoch."""

    chat: bool
    answer_id: str
    created: int
    model: str

    def head(self, streaming: bool) -> dict[str, Any]:
        """The first fields of every body."""
        suffix = ".chunk" if streaming and self.chat else ""
        kind = f"chat.completion{suffix}" if self.chat else "text_completion"
        return {"id": self.answer_id, "object": kind, "created": self.created, "model": self.model}


def usage_of(prompt_tokens: int, output_tokens: int, cached_tokens: int = 0) -> dict[str, Any]:
    """The `usage` object. `cached_tokens`: of the prompt, those that did not have to be computed again."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def whole_answer(envelope: Envelope, text: str, finish_reason: str, usage: dict[str, Any]) -> bytes:
    """The body of an answer that is not streamed."""
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish_reason}
    if envelope.chat:
        choice["message"] = {"role": "assistant", "content": text, "refusal": None}
    else:
        choice["text"] = text
    return encode({**envelope.head(streaming=False), "choices": [choice], "usage": usage})


class ChunkWriter:
    """Events of one stream. Everything but the text is encoded once."""

    def __init__(self, envelope: Envelope, include_usage: bool, index: int = 0) -> None:
        self._chat = envelope.chat
        self._include_usage = include_usage
        self._head = b"data: " + encode(envelope.head(streaming=True))[:-1]
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        opening = b'"delta":{"content":' if self._chat else b'"text":'
        closing = b'},"logprobs":null,"finish_reason":' if self._chat else b',"logprobs":null,"finish_reason":'
        self._before_choice = self._head + b',"choices":[{"index":%d,' % index
        self._before_text = self._before_choice + opening
        self._after_text = closing + b"null}]" + self._tail
        self._before_reason = self._before_text + b'""' + closing
        if self._chat:
            self._before_reason = self._before_choice + b'"delta":{' + closing

    def opening(self) -> bytes:
        """The chunk that names the role; completions have none."""
        if not self._chat:
            return b""
        delta = b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
        return self._before_choice + delta + self._tail

    def frame(self) -> tuple[bytes, bytes] | None:
        """What stands around the text of a delta, as JSON; None where that differs from delta to delta."""
        return self._before_text, self._after_text

    def piece(self, delta: Delta) -> bytes:
        """What one delta brought."""
        return self.text(delta.text)

    def text(self, text: str) -> bytes:
        """New text; nothing for an empty one."""
        return b"".join((self._before_text, encode(text), self._after_text)) if text else b""

    def ending(self, reason: str, usage: dict[str, Any]) -> bytes:
        """The last chunks of a choice that is alone."""
        return self.finish(reason) + self.totals(usage)

    def finish(self, reason: str) -> bytes:
        """The chunk with the reason, which carries no text."""
        return self._before_reason + encode(reason) + b"}]" + self._tail

    def totals(self, usage: dict[str, Any]) -> bytes:
        """With include_usage the chunk with the token counts."""
        return self._head + b',"choices":[],"usage":' + encode(usage) + b"}\n\n" if self._include_usage else b""


def error_event(body: bytes) -> bytes:
    """An error after the stream has begun; no [DONE] follows, so the answer cannot look complete."""
    return b"data: " + body + b"\n\n"


def model_card(name: str, created: int, max_context_tokens: int | None) -> dict[str, Any]:
    """An entry of /v1/models."""
    card: dict[str, Any] = {"id": name, "object": "model", "created": created, "owned_by": "tandem"}
    if max_context_tokens is not None:
        card["max_model_len"] = max_context_tokens
    return card
