"""Stop strings and resumed streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.server.text_stream import TextStream
from tandem_runtime.text.byte_tokenizer import ByteTokenizer


def run(stream: TextStream, ids: list[int]) -> str:
    text = ""
    for token in ids:
        text += stream.push(token)
        if stream.stopped:
            return text
    return text + stream.flush()


@pytest.mark.parametrize(
    ("stop", "want"),
    [
        ([], "one two three"),
        (["two"], "one "),
        (["three", "two"], "one "),
        (["e"], "on"),
        (["two four"], "one two three"),
        (["e three"], "one two three"),
        ([""], "one two three"),
        (["one"], ""),
        (["three!"], "one two three"),
    ],
)
def test_text_ends_before_the_first_stop_string(stop: list[str], want: str) -> None:
    stream = TextStream(ByteTokenizer(), [], [], stop)
    assert run(stream, list(b"one two three")) == want
    assert stream.stopped == (want != "one two three")


def test_the_start_of_a_stop_string_is_held_back_until_it_is_decided() -> None:
    stream = TextStream(ByteTokenizer(), [], [], ["END"])
    assert [stream.push(token) for token in b"xENxE"] == ["x", "", "", "ENx", ""]
    assert stream.flush() == "E"


@given(
    st.text(alphabet="abé€", max_size=12),
    st.lists(st.text(alphabet="abé", min_size=1, max_size=3), max_size=2),
    st.data(),
)
def test_a_resumed_stream_gives_exactly_the_text_that_was_not_given_before(
    text: str, stop: list[str], data: st.DataObject
) -> None:
    ids = list(text.encode())
    cut = data.draw(st.integers(0, len(ids)))
    whole = TextStream(ByteTokenizer(), [], [], stop)
    before = TextStream(ByteTokenizer(), [], [], stop)
    given_before = ""
    for token in ids[:cut]:
        if not before.stopped:
            given_before += before.push(token)
    after = TextStream(ByteTokenizer(), [], ids[:cut], stop)
    rest = "" if after.stopped else run(after, ids[cut:])
    assert given_before + rest == run(whole, ids)
