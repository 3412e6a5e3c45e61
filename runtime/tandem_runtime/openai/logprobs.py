"""Log probabilities as the two APIs show them. JSON knows no infinity: what cannot be drawn shows as LEAST."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tandem_runtime.contracts.pod_protocol import Delta
from tandem_runtime.text.tokenizer import Tokenizer

LEAST: Final = -9999.0
"""What OpenAI's clients expect of a token that is as good as impossible."""


@dataclass(slots=True)
class LogprobView:
    """Of one choice; `show` its deltas in order. `alternatives`: how many were asked for at each place."""

    tokenizer: Tokenizer
    chat: bool
    alternatives: int
    _offset: int = 0

    def show(self, delta: Delta) -> dict[str, Any]:
        """The `logprobs` object of one delta. Tokens are shown one by one; half a character shows as U+FFFD."""
        numbers = delta.logprobs or [LEAST] * len(delta.ids)
        others = delta.alternatives or [[] for _ in delta.ids]
        if self.chat:
            return {
                "content": [
                    {**self._entry(token, number), "top_logprobs": [self._entry(*each) for each in likeliest]}
                    for token, number, likeliest in zip(delta.ids, numbers, others, strict=True)
                ],
                "refusal": None,
            }
        texts = [self._text(token) for token in delta.ids]
        offsets = [self._offset + sum(map(len, texts[:place])) for place in range(len(texts))]
        self._offset += sum(map(len, texts))
        return {
            "tokens": texts,
            "token_logprobs": [max(number, LEAST) for number in numbers],
            "top_logprobs": [self._by_text(likeliest) for likeliest in others] if self.alternatives else None,
            "text_offset": offsets,
        }

    def _entry(self, token: int, number: float) -> dict[str, Any]:
        data = self.tokenizer.token_bytes(token)
        return {"token": data.decode(errors="replace"), "logprob": max(number, LEAST), "bytes": list(data)}

    def _text(self, token: int) -> str:
        return self.tokenizer.token_bytes(token).decode(errors="replace")

    def _by_text(self, likeliest: list[tuple[int, float]]) -> dict[str, float]:
        """Two tokens may read the same: the likelier counts."""
        return {self._text(token): max(number, LEAST) for token, number in reversed(likeliest)}


def join(parts: list[dict[str, Any]], chat: bool) -> dict[str, Any]:
    """The objects of all deltas as the one of the whole answer."""
    if chat:
        return {"content": [entry for part in parts for entry in part["content"]], "refusal": None}
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    without = not parts or parts[0]["top_logprobs"] is None
    return {
        name: None if name == "top_logprobs" and without else [entry for part in parts for entry in part[name]]
        for name in names
    }
