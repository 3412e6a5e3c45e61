"""Where a model comes from: a hub that lists its files, or a web folder that is asked for the names a model has."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import quote

import msgspec
from yarl import URL

from tandem_runtime.fetch.checks import INDEX, SINGLE
from tandem_runtime.fetch.client import Client
from tandem_runtime.fetch.errors import FetchError, NotFound, Refused
from tandem_runtime.fetch.uri import HubUri, WebUri, check_file_name

REQUIRED: Final = ("config.json", "tokenizer.json")
OPTIONAL: Final = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to bring. `sha256` and `git_sha1` (of a git blob) are hex; what the source does not say is None.

    `validator` is an ETag or a Last-Modified date, as the server of a web folder says it.
    """

    name: str
    url: URL
    size_bytes: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    validator: str | None = None

    @property
    def content_id(self) -> str | None:
        """Says that two versions are the same without asking the server."""
        return self.sha256 or self.git_sha1


class Source(Protocol):
    """Lists files; the small ones first, because the index among them says which weights there are."""

    async def list_small(self, client: Client, tokenizer_only: bool) -> list[RemoteFile]:
        """Everything but weights. Raises FetchError when a file that every model has is missing."""

    async def list_weights(self, client: Client, shards: list[str] | None) -> list[RemoteFile]:
        """The named shards; None when the model has no index. Raises FetchError."""


@dataclass(slots=True)
class HubSource:
    """The hub's API gives sizes and checksums; the commit is pinned, so a push in between mixes nothing."""

    uri: HubUri
    endpoint: str
    _files: dict[str, RemoteFile] = field(default_factory=dict)

    async def list_small(self, client: Client, tokenizer_only: bool) -> list[RemoteFile]:
        """Raises FetchError."""
        revision = quote(self.uri.revision, safe="")
        base = self.endpoint.rstrip("/")
        url = URL(f"{base}/api/models/{self.uri.repository}/revision/{revision}?blobs=true", encoded=True)
        try:
            answer = msgspec.json.decode(await client.read(url), type=_HubAnswer)
        except msgspec.DecodeError as error:
            raise FetchError(f"{url} gives no file list: {error}; is {self.endpoint} a hub?") from error
        commit = quote(answer.sha or self.uri.revision, safe="")
        for entry in answer.siblings:
            name = check_file_name(entry.rfilename, str(url))
            where = URL(f"{base}/{self.uri.repository}/resolve/{commit}/{quote(name)}", encoded=True)
            large = entry.lfs
            self._files[name] = RemoteFile(
                name,
                where,
                size_bytes=large.size if large and large.size is not None else entry.size,
                sha256=large.sha256 if large else None,
                git_sha1=None if large else entry.blob_id,
            )
        for name in REQUIRED:
            if name not in self._files:
                raise FetchError(f"{self.uri} has no {name}; Tandem needs config.json, tokenizer.json and safetensors")
        return [
            file
            for name, file in sorted(self._files.items())
            if "/" not in name and name.endswith((".json", ".jinja")) and not (tokenizer_only and _is_index(name))
        ]

    async def list_weights(self, client: Client, shards: list[str] | None) -> list[RemoteFile]:
        """Raises FetchError."""
        if shards is None and SINGLE in self._files:
            shards = [SINGLE]
        if shards is None:
            shards = sorted(name for name in self._files if "/" not in name and name.endswith(".safetensors"))
            if not shards:
                raise FetchError(f"{self.uri} has no *.safetensors file; Tandem reads no other format")
        missing = [name for name in shards if name not in self._files]
        if missing:
            raise FetchError(f"{self.uri}: {INDEX} names {missing[0]}, which the repository does not have")
        return [self._files[name] for name in shards]


@dataclass(slots=True)
class WebSource:
    """A folder on any web server; a SHA256SUMS file in it is what its files must match."""

    uri: WebUri
    _checksums: dict[str, str] = field(default_factory=dict)

    async def list_small(self, client: Client, tokenizer_only: bool) -> list[RemoteFile]:
        """Raises FetchError."""
        await self._read_checksums(client)
        files = [await self._find(client, name) for name in REQUIRED]
        for name in OPTIONAL if tokenizer_only else (*OPTIONAL, INDEX):
            try:
                files.append(await self._find(client, name))
            except (NotFound, Refused):  # object stores answer 403 for what is not there
                if name in self._checksums:
                    raise
        return files

    async def list_weights(self, client: Client, shards: list[str] | None) -> list[RemoteFile]:
        """Raises FetchError."""
        return [await self._find(client, name) for name in shards or [SINGLE]]

    async def _find(self, client: Client, name: str) -> RemoteFile:
        url = self.uri.folder.joinpath(*name.split("/"))
        probe = await client.probe(url)
        if self._checksums and name not in self._checksums:
            client.say(f"{name} is not in SHA256SUMS of {self.uri}: it is checked by its size only")
        return RemoteFile(name, url, probe.size_bytes, self._checksums.get(name), validator=probe.validator)

    async def _read_checksums(self, client: Client) -> None:
        url = self.uri.folder / "SHA256SUMS"
        try:
            text = (await client.read(url)).decode("utf-8", errors="replace")
        except (NotFound, Refused):
            return
        self._checksums = parse_checksums(text, f"{self.uri}SHA256SUMS")


def parse_checksums(text: str, origin: str) -> dict[str, str]:
    """{name: sha256} of `sha256sum` output. Raises FetchError for anything else."""
    checksums: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line.rstrip())
        if match is None:
            raise FetchError(f"{origin} is no checksum list: {line[:80]!r}; write it with sha256sum")
        checksums[match[2].removeprefix("./")] = match[1].lower()
    return checksums


def _is_index(name: str) -> bool:
    return name.endswith(".index.json")


class _Lfs(msgspec.Struct):
    sha256: str | None = None
    size: int | None = None


class _Sibling(msgspec.Struct):
    rfilename: str
    size: int | None = None
    blob_id: str | None = msgspec.field(name="blobId", default=None)
    lfs: _Lfs | None = None


class _HubAnswer(msgspec.Struct):
    siblings: list[_Sibling]
    sha: str | None = None
