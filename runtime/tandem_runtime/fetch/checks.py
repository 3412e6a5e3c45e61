"""Is this folder a whole model? Reads only JSON files and the headers of safetensors files: fast at any size."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Final

from tandem_runtime.fetch.errors import FetchError
from tandem_runtime.fetch.uri import check_file_name

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the safetensors format."""


def check_folder(folder: Path, tokenizer_only: bool = False) -> list[str]:
    """Names of the model's files in `folder`. Raises FetchError naming what is missing or damaged."""
    if not folder.is_dir():
        raise FetchError(f"{folder} is not a folder; is the volume mounted, the path right?")
    names = ["config.json", "tokenizer.json"]
    for name in names:
        if not (folder / name).is_file():
            raise FetchError(f"{folder / name} is missing; a model folder has config.json, tokenizer.json and weights")
        read_object(folder / name)
    if tokenizer_only:
        return names
    shards = list_shards(folder)
    for name in shards:
        check_safetensors(folder / name)
    return [*names, *shards]


def list_shards(folder: Path) -> list[str]:
    """Names of the weight files: those of the index, else model.safetensors, else every *.safetensors there is."""
    if (folder / INDEX).is_file():
        return read_index(folder / INDEX)
    if (folder / SINGLE).is_file():
        return [SINGLE]
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if not found:
        raise FetchError(f"{folder} has no *.safetensors file; convert other formats with save_pretrained()")
    return found


def read_index(path: Path) -> list[str]:
    """File names in the index, sorted. Raises FetchError for a name that would leave the folder."""
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FetchError(f"{path} has no weight_map; it is not an index of safetensors files")
    names = {check_file_name(name, str(path)) for name in weight_map.values()}
    for name in names:
        if not name.endswith(".safetensors"):
            raise FetchError(f"{path} names the weight file {name!r}; only *.safetensors files are read")
    return sorted(names)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises FetchError."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FetchError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise FetchError(f"{path} holds a {type(value).__name__}; a JSON object is expected")
    return value


def check_safetensors(path: Path, shown: Path | None = None) -> None:
    """Header length and the end of the last tensor against the file's size. Raises FetchError with the numbers.

    `shown` is the name for the message when the file is not at its place yet.
    """
    shown = shown or path
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, size - 8):
                raise FetchError(f"{shown} is damaged: {size} bytes, of which the header should take {header_bytes}")
            header = json.loads(file.read(header_bytes))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        want = 8 + header_bytes + max(ends, default=0)
    except OSError as error:
        raise FetchError(f"{shown} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise FetchError(f"{shown} is damaged: its safetensors header cannot be read ({error})") from error
    if want != size:
        kind = "truncated" if size < want else "too long"
        raise FetchError(f"{shown} is {kind}: {size} bytes, its header says {want}; delete it and fetch again")
