"""The bundled tokenizer: one id per byte, then a few specials. Serves the emulated executor, which has no model folder.

No third-party imports: an emulated pod starts in well under a second and stays small.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tandem_runtime.text.messages import ChatTemplateError, flatten_content

BOS: Final = 256
EOS: Final = 257
ROLES: Final = {"system": 258, "developer": 258, "user": 259, "assistant": 260, "tool": 261}
END_OF_TURN: Final = 262
VOCAB_SIZE: Final = 263
PRINTABLE_IDS: Final = tuple(b"etaoinshrdlucmfwypvbgkjqxz      ")
"""32 ids: letters, and a space about as often as in prose. What the emulated executor should answer with."""


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of UTF-8 text."""

    vocab_size: int = VOCAB_SIZE
    eos_token_ids: frozenset[int] = frozenset((EOS, END_OF_TURN))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """BOS when asked for, then the bytes; lone surrogates become "?"."""
        ids = list(text.encode("utf-8", errors="replace"))
        return [BOS, *ids] if add_special_tokens else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the bytes, specials left out, each invalid sequence as U+FFFD."""
        return bytes([token_id for token_id in ids if 0 <= token_id < BOS]).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """One byte; specials by number."""
        return bytes([token_id]) if 0 <= token_id < BOS else f"<|{token_id}|>".encode()

    def apply_chat_template(self, messages: list[dict[str, Any]]) -> list[int]:
        """BOS, each turn as role id, bytes, END_OF_TURN; then the assistant's role id. Raises ChatTemplateError."""
        ids = [BOS]
        for message in messages:
            turn = flatten_content(message)
            role, content = turn.get("role"), turn.get("content")
            if role not in ROLES:
                raise ChatTemplateError(f"message role {role!r}; known are {', '.join(ROLES)}")
            ids += [ROLES[role], *self.encode(content or "", add_special_tokens=False), END_OF_TURN]
        return [*ids, ROLES["assistant"]]
