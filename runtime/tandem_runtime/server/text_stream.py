"""Text of one output stream: incremental detokenisation and stop strings. A function of the ids alone, so that a
resumed stream goes on with the very character that was held back."""

from __future__ import annotations

from collections.abc import Sequence

from tandem_runtime.text.detokenizer import Detokenizer
from tandem_runtime.text.tokenizer import Tokenizer


class TextStream:
    """`emitted_ids` were streamed before: their text is not given again."""

    def __init__(
        self, tokenizer: Tokenizer, prompt_ids: Sequence[int], emitted_ids: Sequence[int], stop: Sequence[str]
    ) -> None:
        self.stopped = False
        self._detokenizer = Detokenizer(tokenizer, prompt_ids)
        self._stop = [word for word in stop if word]
        self._held = ""
        """The start of what may become a stop string."""
        for token in emitted_ids:
            if not self.stopped:
                self.push(token)

    def push(self, token: int) -> str:
        """Text that is final now. At a stop string: the text before it, and `stopped` is set."""
        return self._filter(self._detokenizer.push((token,)))

    def flush(self) -> str:
        """What was held back, at the end of a stream that did not stop."""
        if self.stopped:
            return ""
        text = self._filter(self._detokenizer.flush())
        held, self._held = ("", "") if self.stopped else (self._held, "")
        return text + held

    def _filter(self, text: str) -> str:
        if not self._stop or not text:
            return text
        text = self._held + text
        self._held = ""
        found = [position for position in (text.find(word) for word in self._stop) if position >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = max(_overlap(text, word) for word in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that `word` starts with."""
    for size in range(min(len(text), len(word) - 1), 0, -1):
        if text.endswith(word[:size]):
            return size
    return 0
