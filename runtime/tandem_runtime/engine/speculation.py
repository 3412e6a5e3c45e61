"""Drafts of a sequence's next tokens from its own history (prompt lookup), and how long they may be. Pure.

A draft is a guess that one forward checks at all its places: what holds is what would have been drawn anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NGRAMS: Final = (4, 2)
"""Lengths of the sequence's end that are looked for in its past: long ones are right more often, short ones found
more often."""
HISTORY_TOKENS: Final = 8192
"""Of a longer past only the end is read: it costs about 3 MB and 10 ms of Python once."""
FIRST_DRAFT: Final = 2
LONGEST_REST: Final = 64
"""Tokens without a draft after many wrong ones in a row: text that begins to repeat itself is noticed soon enough."""


class Past:
    """Where each short run of tokens of a growing sequence was last followed by something."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], int] = {}
        self._read = 0

    def follow(self, tokens: Sequence[int], count: int) -> list[int]:
        """`count` tokens that came after the last place that reads like the end; none when there is no such place.
        `tokens` only ever grows at its end."""
        self._learn(tokens)
        for size in NGRAMS:
            place = self._next.get(tuple(tokens[-size:])) if len(tokens) > size else None
            if place is not None:
                after = tokens[place : place + count]
                return [after[number % len(after)] for number in range(count)]  # it repeats itself: so does the draft
        return []

    def _learn(self, tokens: Sequence[int]) -> None:
        for end in range(max(self._read, len(tokens) - HISTORY_TOKENS), len(tokens)):
            for size in NGRAMS:
                if end >= size:
                    self._next[tuple(tokens[end - size : end])] = end
        self._read = len(tokens)


class Drafter:
    """Of one request: drafts of at most `most` tokens, longer while they hold, none for a while when they do not."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._past = Past()
        self._length = min(FIRST_DRAFT, most)
        self._rest = 1
        self._resumes_at = 0

    def draft(self, tokens: Sequence[int], room: int) -> list[int]:
        """At most `room` tokens that may come next."""
        length = min(self._length, room)
        if length < 1 or len(tokens) < self._resumes_at:
            return []
        return self._past.follow(tokens, length)

    def learn(self, proposed: int, held: int, tokens: int) -> None:
        """Of `proposed` tokens the first `held` were right; the sequence is `tokens` long now."""
        if held == proposed:
            self._length = min(self._most, 2 * self._length)
            self._rest = max(1, self._rest // 2)
        elif held:
            self._length = held + 1
        else:
            self._length = 1
            self._resumes_at = tokens + self._rest
            self._rest = min(2 * self._rest, LONGEST_REST)


def count_held(drafts: Sequence[int], drawn: Sequence[int | None]) -> int:
    """How many drafts are what was drawn at their place, up to the first that is not."""
    pairs = enumerate(zip(drafts, drawn, strict=False))
    return next((number for number, (draft, token) in pairs if draft != token), len(drafts))


def share_rows(spare: int, requests: int) -> int:
    """Rows for the next of `requests` that are still to be asked: what one leaves is the others'."""
    return max(0, spare) // requests
