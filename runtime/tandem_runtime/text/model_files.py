"""Small facts from the JSON files of a model folder, with errors that name the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

EOS_FILES = ("generation_config.json", "config.json")
"""The first that says eos_token_id wins, as in transformers: chat models list their end of turn only in the former."""


class TokenizerError(Exception):
    """The folder's tokenizer files cannot be used; the message names the file and what to do."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`, {} when there is no such file. Raises TokenizerError when it is not a JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} holds a {type(value).__name__}; a JSON object is expected")
    return value


def read_special_tokens(model_dir: Path) -> dict[str, str]:
    """`{"bos_token": "<s>", ...}` of tokenizer_config.json, else of special_tokens_map.json: what templates may use."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in read_json(model_dir / name).items():
            content = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(content, str):
                tokens[key] = content
    return tokens


def read_eos_token_ids(model_dir: Path, token_to_id: Callable[[str], int | None]) -> frozenset[int]:
    """Ids that end generation; empty when no file names one.

    `token_to_id` is asked for the `eos_token` of tokenizer_config.json when neither of EOS_FILES says an id.
    """
    for name in EOS_FILES:
        value = read_json(model_dir / name).get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(token_id, int) and token_id >= 0 for token_id in ids):
            raise TokenizerError(f"{model_dir / name}: eos_token_id is {value!r}; expected are ids of 0 or more")
        if ids:
            return frozenset(ids)
    token = read_special_tokens(model_dir).get("eos_token")
    found = token_to_id(token) if token else None
    return frozenset() if found is None else frozenset((found,))
