"""config.json of a model from its repository: small files, bounded in size and time, never followed elsewhere."""

from __future__ import annotations

import json
import os
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from tandem_operator.reconcile.models import Unread

DEFAULT_HUB: Final = "https://huggingface.co"
TIMEOUT: Final = aiohttp.ClientTimeout(total=10, connect=5)
SIZE_LIMIT: Final = 4 << 20
"""Of a large model's safetensors index; a config.json has a few kB."""
REDIRECTS: Final = 3
INDEX: Final = "model.safetensors.index.json"


class Repository:
    """Reads with no credentials: what is gated stays unknown, and the user says what placement needs."""

    def __init__(self, hub: str = "") -> None:
        self._hub = (hub or os.environ.get("HF_ENDPOINT") or DEFAULT_HUB).rstrip("/")

    async def read(self, uri: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """config.json and the index, if there is one. Raises Unread."""
        folder = self._folder(uri)
        async with aiohttp.ClientSession(timeout=TIMEOUT, trust_env=True) as session:
            config = await _get(session, f"{folder}/config.json")
            if config is None:
                raise Unread("there is none (404)")
            try:
                return config, await _get(session, f"{folder}/{INDEX}")
            except Unread:
                return config, None

    def _folder(self, uri: str) -> str:
        if not uri.startswith("hf://"):
            return uri.rstrip("/")
        repository, _, revision = uri.removeprefix("hf://").partition("@")
        return f"{self._hub}/{quote(repository)}/resolve/{quote(revision or 'main', safe='')}"


async def _get(session: aiohttp.ClientSession, url: str) -> dict[str, Any] | None:
    """None: there is no such file."""
    try:
        async with session.get(url, max_redirects=REDIRECTS) as response:
            if response.status == 404:
                return None
            if response.status >= 300:
                raise Unread(f"it answers {response.status}")
            data = await response.content.read(SIZE_LIMIT + 1)
            while len(data) <= SIZE_LIMIT and (more := await response.content.read(SIZE_LIMIT + 1 - len(data))):
                data += more
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise Unread(f"it is not reached ({type(error).__name__})") from error
    if len(data) > SIZE_LIMIT:
        raise Unread(f"it is larger than {SIZE_LIMIT >> 20} MiB")
    try:
        content = json.loads(data)
    except ValueError as error:
        raise Unread("it is no JSON") from error
    if not isinstance(content, dict):
        raise Unread("it is no JSON object")
    return content
