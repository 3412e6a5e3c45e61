"""The tokenizer of a model folder (tokenizer.json through the `tokenizers` library), or the bundled one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from tandem_runtime.text.byte_tokenizer import ByteTokenizer
from tandem_runtime.text.messages import ChatTemplateError
from tandem_runtime.text.model_files import TokenizerError, read_eos_token_ids
from tandem_runtime.text.token_bytes import spelling_reader

if TYPE_CHECKING:
    import tokenizers

    from tandem_runtime.text.chat_template import ChatTemplate

__all__ = ["ChatTemplateError", "Tokenizer", "TokenizerError", "load_tokenizer"]

LONG_TEXT_CHARACTERS: Final = 8192
"""From here on encoding takes more than about 1 ms: do it in a thread. The library's `encode` would hold the
interpreter's lock all the while (2 MB of text: 2.5 s, and pods take a silent router for lost); in batches not."""


class Tokenizer(Protocol):
    """Text to ids and back. Thread-safe: encoding a long prompt may run in a thread."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Ids that end generation."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of any Python string; with `add_special_tokens` what the model expects around a prompt (often BOS)."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text without special tokens; bytes that are no UTF-8 become U+FFFD, unknown ids nothing."""

    def token_bytes(self, token_id: int) -> bytes:
        """What one token stands for, whatever its neighbours; a special token's name; nothing for unknown ids."""

    def apply_chat_template(self, messages: list[dict[str, Any]]) -> list[int]:
        """Ids of the conversation up to where the assistant answers. Raises ChatTemplateError."""


def load_tokenizer(model_dir: Path | None) -> Tokenizer:
    """The tokenizer of a model folder; None gives the bundled byte-level one. Raises TokenizerError naming the file."""
    if model_dir is None:
        return ByteTokenizer()
    # Here, because emulated pods and their routers need neither library.
    import tokenizers

    from tandem_runtime.text.chat_template import read_chat_template

    path = model_dir / "tokenizer.json"
    if not path.is_file():
        raise TokenizerError(f"{path} is missing; save the model with its fast tokenizer (tokenizer.json)")
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path} is not a tokenizer file: {error}") from error
    inner.no_truncation()  # a file may carry its training's truncation
    inner.no_padding()
    eos_token_ids = read_eos_token_ids(model_dir, inner.token_to_id)
    return FolderTokenizer(inner, eos_token_ids, read_chat_template(model_dir), model_dir)


class FolderTokenizer:
    """A Hugging Face fast tokenizer with its folder's chat template and end-of-text ids."""

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        eos_token_ids: frozenset[int],
        chat_template: ChatTemplate | None,
        model_dir: Path,
    ) -> None:
        self.eos_token_ids = eos_token_ids
        self.vocab_size = max(inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._inner = inner
        self._read_spelling = spelling_reader(repr(inner.decoder))
        self._added = {token_id: token.content for token_id, token in inner.get_added_tokens_decoder().items()}
        self._chat_template = chat_template
        self._model_dir = model_dir

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of `text`; lone surrogates (JSON allows them, UTF-8 does not) become "?"."""
        clean = text.encode("utf-8", errors="replace").decode("utf-8")
        if len(clean) < LONG_TEXT_CHARACTERS:
            return list(self._inner.encode(clean, add_special_tokens=add_special_tokens).ids)
        [encoding] = self._inner.encode_batch_fast([clean], add_special_tokens=add_special_tokens)
        return list(encoding.ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text without special tokens."""
        return str(self._inner.decode(list(ids), skip_special_tokens=True))

    def token_bytes(self, token_id: int) -> bytes:
        """From its spelling in the vocabulary."""
        if token_id in self._added:
            return self._added[token_id].encode()
        spelling = self._inner.id_to_token(token_id)
        return self._read_spelling(spelling) if spelling is not None else b""

    def apply_chat_template(self, messages: list[dict[str, Any]]) -> list[int]:
        """The template writes BOS itself where the model wants it. Raises ChatTemplateError."""
        if self._chat_template is None:
            raise ChatTemplateError(
                f"{self._model_dir} has no chat template (chat_template.jinja, or chat_template in "
                "tokenizer_config.json); use /v1/completions or add one"
            )
        return self.encode(self._chat_template.render(messages), add_special_tokens=False)
