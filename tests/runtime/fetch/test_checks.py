"""A damaged model folder is found before a pod loads it, whatever is in its headers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.fetch.checks import check_folder, check_safetensors
from tandem_runtime.fetch.errors import FetchError
from tandem_runtime.fetch.store import format_bytes

from tests.runtime.fetch.web import model_files, safetensors


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("shards", [1, 2])
def test_a_whole_folder_passes(tmp_path: Path, shards: int) -> None:
    names = check_folder(write(tmp_path, model_files(shards, 1000)))
    assert len([name for name in names if name.endswith(".safetensors")]) == shards


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", None, r"config\.json is missing"),
        ("tokenizer.json", b"{", r"tokenizer\.json is not valid JSON"),
        ("model-1-of-2.safetensors", None, r"model-1-of-2\.safetensors cannot be read: No such file"),
        ("model-1-of-2.safetensors", safetensors(1000)[:-1], "truncated: 1073 bytes, its header says 1074"),
        ("model-1-of-2.safetensors", safetensors(1000) + b"x", "too long: 1075 bytes, its header says 1074"),
        ("model-1-of-2.safetensors", struct.pack("<Q", 1 << 60) + b"{}", "damaged: 10 bytes"),
        ("model.safetensors.index.json", b"{}", "no weight_map"),
    ],
)
def test_what_is_damaged_is_named_with_numbers(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    write(tmp_path, model_files(2, 1000))
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FetchError, match=words):
        check_folder(tmp_path)


@given(data=st.binary(max_size=64), honest=st.booleans())
def test_any_bytes_are_answered_not_crashed_on(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, honest: bool
) -> None:
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data if honest else data)
    with pytest.raises(FetchError, match=r"x\.safetensors"):
        check_safetensors(path)


@pytest.mark.parametrize(
    ("count", "want"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (16 << 20, "16.0 MiB"), (15e12, "13969.8 GiB")]
)
def test_sizes_read_well(count: float, want: str) -> None:
    assert format_bytes(count) == want
