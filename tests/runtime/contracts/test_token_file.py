"""The token file of a pod: read again when the mounted Secret changes, never given up."""

from __future__ import annotations

from pathlib import Path

import pytest
from tandem_runtime.contracts.token_file import TokenFile, TokenFileError


def mount(folder: Path, version: str, token: str) -> None:
    """As a kubelet does it: a new folder, then the link to it is replaced in one step."""
    data = folder / f"..{version}"
    data.mkdir()
    (data / "token").write_text(token)
    link = folder / "..data_tmp"
    link.symlink_to(data.name)
    link.replace(folder / "..data")


def test_a_secret_that_is_replaced_is_seen_and_one_that_is_not_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount(tmp_path, "v1", "first")
    (tmp_path / "token").symlink_to("..data/token")
    token = TokenFile(tmp_path / "token")
    with monkeypatch.context() as patch:
        patch.delattr(Path, "read_text")
        assert (token(), token()) == ("first", "first")
    mount(tmp_path, "v2", "other\n")
    assert token() == "other"


def test_a_file_that_is_gone_or_empty_for_a_while_leaves_the_token_in_use(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    token = TokenFile(path)
    for spoil in (path.unlink, lambda: path.write_text(" \n"), lambda: path.write_bytes(b"\xff\xfe")):
        spoil()
        assert token() == "first"
    path.write_text("second")
    assert token() == "second"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_at_the_start_there_must_be_a_token_and_the_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TokenFileError, match=str(path)):
        TokenFile(path)
