"""Ids to text as they come: what is pushed out is final, an incomplete UTF-8 character is held back.

Only a short window of ids is decoded for each push; ids before it matter no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tandem_runtime.text.tokenizer import Tokenizer

REPLACEMENT: Final = "\ufffd"
HOLD_TOKENS: Final = 16
"""A character has at most 4 tokens: a window this long that still ends in U+FFFD holds bytes that are no text."""
HELD_CHARACTERS: Final = 3
"""Of such a window, the last 3 invalid bytes may still become a character."""
CONTEXT_TOKENS: Final = 8
"""Ids of the prompt decoded before the first new one: some tokenizers drop a space at the start of a text."""


class Detokenizer:
    """For one output stream: all that push() and flush() return is decode(prefix_ids + ids) after the prefix's text.

    `prefix_ids` are the ids before the stream: the prompt, and on a resume what was emitted already.
    """

    def __init__(self, tokenizer: Tokenizer, prefix_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        """Ids that are decoded together; the first `_settled` of them are whole characters that are out already."""
        self._settled = 0
        self._emitted = 0
        """Characters of the window's text that are out already."""
        self._hold_tokens = HOLD_TOKENS
        self.push(_context(tokenizer, prefix_ids))

    def push(self, ids: Iterable[int]) -> str:
        """New text; may be empty while a character is incomplete."""
        return "".join([self._push_one(token_id) for token_id in ids])

    def flush(self) -> str:
        """What was held back, as U+FFFD; call once at the end of the stream."""
        text = self._tokenizer.decode(self._window)
        out = text[self._emitted :]
        self._emitted = len(text)
        return out

    def _push_one(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._tokenizer.decode(self._window)
        final = len(text.rstrip(REPLACEMENT))
        if final < len(text) or final <= self._emitted:
            if len(self._window) >= self._hold_tokens:
                return self._hold(text)
            out = text[self._emitted : final]
            self._emitted = max(self._emitted, final)
            return out
        out = text[self._emitted :]
        self._window = self._window[self._settled :]
        self._settled = len(self._window)
        self._emitted = len(self._tokenizer.decode(self._window))
        self._hold_tokens = HOLD_TOKENS + len(self._window)
        return out

    def _hold(self, text: str) -> str:
        """The window is too long: lets go what can no longer change; starts a shorter window if one reads the same."""
        tail = len(text) - len(text.rstrip(REPLACEMENT))
        final = max(self._emitted, len(text) - min(tail, HELD_CHARACTERS))
        out = text[self._emitted : final]
        self._emitted = final
        for cut in range(len(self._window) - HELD_CHARACTERS, max(0, len(self._window) - HOLD_TOKENS), -1):
            head, rest = self._tokenizer.decode(self._window[:cut]), self._tokenizer.decode(self._window[cut:])
            if head + rest == text and len(head) <= final:
                self._window, self._emitted, self._settled = self._window[cut:], final - len(head), 0
                self._hold_tokens = HOLD_TOKENS
                return out
        self._hold_tokens = 2 * len(self._window)  # nothing fits: try again later, at a cost that stays amortised
        return out


def _context(tokenizer: Tokenizer, prefix_ids: Sequence[int]) -> list[int]:
    """The last ids of the prefix, from the start of a character."""
    context: list[int] = []
    for tokens in range(CONTEXT_TOKENS, CONTEXT_TOKENS + 4):
        context = list(prefix_ids[-tokens:])
        if any(not tokenizer.decode(context[:head]).startswith(REPLACEMENT) for head in range(1, 5)):
            break
    return context
