"""config.json of a model from its repository: small files, bounded in size and time.

Whoever may make a deployment says which address the operator asks: never those that only its own node answers.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from ipaddress import ip_address
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
HEADERS: Final = {"Accept-Encoding": "identity"}
"""A limit of what comes is one of what is unpacked, too."""
METADATA: Final = ("fd00:ec2::254", "100.100.100.200")
"""Metadata services of clouds that are not link-local, as 169.254.169.254 is."""


def is_nobodys(address: str) -> bool:
    """Whether an IP address is no place for a model: the operator's own pod, or what gives its node's credentials."""
    ip = ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast or str(ip) in METADATA


class Repository:
    """Reads with no credentials: what is gated stays unknown, and the user says what placement needs."""

    def __init__(self, hub: str = "", is_barred: Callable[[str], bool] = is_nobodys) -> None:
        """`is_barred`: IP addresses that are never asked, whatever name or redirect leads there."""
        self._is_barred = is_barred
        self._hub = (hub or os.environ.get("HF_ENDPOINT") or DEFAULT_HUB).rstrip("/")

    async def read(self, uri: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """config.json and the index, if there is one. Raises Unread."""
        folder = self._folder(uri)
        connector = aiohttp.TCPConnector(socket_factory=self._socket)
        async with aiohttp.ClientSession(
            connector=connector, timeout=TIMEOUT, headers=HEADERS, auto_decompress=False, trust_env=True
        ) as session:
            config = await _get(session, f"{folder}/config.json")
            if config is None:
                raise Unread("there is none (404)")
            try:
                return config, await _get(session, f"{folder}/{INDEX}")
            except Unread:
                return config, None

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """For each connection: names were resolved by now. Raises OSError."""
        family, kind, protocol, _, place = address
        if self._is_barred(str(place[0])):
            raise PermissionError(f"{place[0]} is no address of a model repository")
        return socket.socket(family, kind, protocol)

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
    except (ValueError, RecursionError) as error:
        raise Unread("it is no JSON") from error
    if not isinstance(content, dict):
        raise Unread("it is no JSON object")
    return content
