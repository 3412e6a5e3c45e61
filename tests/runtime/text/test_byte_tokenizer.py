"""The bundled tokenizer: any text comes back, turns are framed, and nothing else is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.text.byte_tokenizer import BOS, END_OF_TURN, PRINTABLE_IDS, ROLES, VOCAB_SIZE, ByteTokenizer
from tandem_runtime.text.messages import ChatTemplateError
from tandem_runtime.text.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer(None)


@given(st.text())
def test_text_comes_back_from_its_ids(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert ids[0] == BOS
    assert all(0 <= token_id < VOCAB_SIZE for token_id in ids)
    assert TOKENIZER.decode(ids) == text


def test_a_lone_surrogate_does_not_fail() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")) == "a?b"


def test_a_conversation_ends_where_the_assistant_answers() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    ids = TOKENIZER.apply_chat_template([{"role": "system", "content": "s"}, {"role": "user", "content": parts}])
    want = [BOS, ROLES["system"], *b"s", END_OF_TURN, ROLES["user"], *b"a\nb", END_OF_TURN, ROLES["assistant"]]
    assert ids == want


@pytest.mark.parametrize(
    "message", [{"role": "robot", "content": "x"}, {"role": "user", "content": [{"type": "image_url"}]}]
)
def test_what_it_cannot_frame_is_the_clients_mistake(message: dict[str, object]) -> None:
    with pytest.raises(ChatTemplateError, match=r"robot|image_url"):
        TOKENIZER.apply_chat_template([message])


def test_every_printable_id_prints() -> None:
    assert len(PRINTABLE_IDS) == 32
    assert ByteTokenizer().decode(PRINTABLE_IDS).isprintable()


def test_loading_it_imports_nothing_beyond_the_standard_library() -> None:
    code = (
        "import sys\nfrom tandem_runtime.text.tokenizer import load_tokenizer\n"
        "load_tokenizer(None).encode('x')\nimport tandem_runtime.text.detokenizer\n"
        "print([name for name in ('tokenizers', 'jinja2', 'torch', 'numpy', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
