"""Model URIs mean one thing each, and no name leads out of the model folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.fetch.errors import FetchError, UriError
from tandem_runtime.fetch.uri import ClaimUri, FolderUri, HubUri, WebUri, check_file_name, parse_uri
from yarl import URL


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("hf://org/repo", HubUri("org/repo", "main")),
        ("hf://org/repo.v2@refs/pr/1", HubUri("org/repo.v2", "refs/pr/1")),
        ("hf://gpt2@abc123", HubUri("gpt2", "abc123")),
        ("https://host/models/a", WebUri(URL("https://host/models/a/"))),
        ("http://host:81/a/", WebUri(URL("http://host:81/a/"))),
        ("pvc://claim/a/b", ClaimUri("claim", "a/b")),
        ("pvc://claim", ClaimUri("claim", "")),
        ("file:///models/tiny", FolderUri(Path("/models/tiny"))),
    ],
)
def test_every_form_is_understood(text: str, want: object) -> None:
    assert parse_uri(text) == want


@pytest.mark.parametrize(
    "text",
    [
        *("", "model", "hf://", "hf://a/b/c", "hf://../b", "hf://a b/c", "hf://a/b@../c", "file://models"),
        *("pvc:///x", "pvc://c/../x", "s3://bucket/x", "http://", "https://host/a?b=c"),
    ],
)
def test_what_is_no_model_uri_is_answered_with_the_right_form(text: str) -> None:
    with pytest.raises(UriError, match=r"; use .*://"):
        parse_uri(text)


def test_a_password_does_not_reach_logs_and_records() -> None:
    assert str(parse_uri("https://me:secret@host/a/")) == "https://host/a/"


@given(st.lists(st.sampled_from(["..", ".", "", "a", "/", "\\", "b.json", ".tandem", "\n", "\0"]), max_size=6))
def test_an_accepted_name_stays_in_the_folder(parts: list[str]) -> None:
    name = "/".join(parts)
    try:
        check_file_name(name, "a list")
    except FetchError:
        return
    target = Path("/to", name)
    assert target.is_relative_to("/to")
    assert ".." not in target.parts
    assert target.parts[2] != ".tandem"
