"""One file: goes on where an earlier try or process stopped, verifies, and appears under its name only when whole.

Beside the partial file stands what it is a part of; without proof that the server still has the same, it starts over.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import aiohttp
import msgspec

from tandem_runtime.fetch.checks import check_safetensors
from tandem_runtime.fetch.client import Client, read_validator
from tandem_runtime.fetch.errors import FetchError, Transient
from tandem_runtime.fetch.sources import RemoteFile
from tandem_runtime.fetch.store import part_folder

CHUNK_BYTES: Final = 1 << 20
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class Part(msgspec.Struct, frozen=True):
    """What the bytes on disk belong to: a checksum of the whole, or the server's validator."""

    version: str | None
    validator: str | None
    size_bytes: int | None


class Download:
    """`report` is told how many bytes of the file are there, whenever that changes."""

    def __init__(self, client: Client, file: RemoteFile, folder: Path, report: Callable[[int], None]) -> None:
        self._client = client
        self._file = file
        self._report = report
        self._final = folder / file.name
        self._partial = part_folder(folder) / f"{file.name}.partial"
        self._note = part_folder(folder) / f"{file.name}.json"
        self._received_bytes = 0
        self._hash: Any = None
        self._resumed = False
        self._restarted = False

    def is_done(self) -> bool:
        """The file is at its place and known to be the version that is wanted."""
        note, wanted = self._read_note(), self._file.content_id or self._file.validator
        if note is None or wanted is None or note.version != wanted or not self._final.is_file():
            return False
        return self._final.stat().st_size == note.size_bytes

    def bytes_on_disk(self) -> int:
        """Of the file, whole or partial: what needs no more room."""
        path = self._final if self.is_done() else self._partial
        return path.stat().st_size if path.is_file() else 0

    async def run(self) -> None:
        """Raises FetchError."""
        if self.is_done():
            self._report(self._final.stat().st_size)
            return
        try:
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            self._final.parent.mkdir(parents=True, exist_ok=True)
            await self._client.persist(self._file.name, self._attempt, lambda: self._received_bytes)
        except OSError as error:
            raise FetchError(f"writing {self._partial}: {error.strerror or error}") from error

    async def _attempt(self) -> None:
        note = self._read_note()
        offset = self._partial.stat().st_size if self._partial.is_file() else 0
        headers = self._resume_headers(note, offset)
        if headers is None:
            offset, headers = 0, {}
        whole = note.size_bytes if note and offset else None
        if not offset or offset != whole:
            whole = await self._transfer(offset, headers)
        else:
            await self._start_hash(offset)
        await asyncio.to_thread(self._finish, whole)

    def _resume_headers(self, note: Part | None, offset: int) -> dict[str, str] | None:
        """Headers that ask for the rest; None when the partial file is of no use."""
        if note is None or not offset or (note.size_bytes is not None and offset > note.size_bytes):
            return None
        self._resumed = True
        wanted = {"Range": f"bytes={offset}-"}
        if self._file.content_id is not None:
            return wanted if note.version == self._file.content_id else None
        return {**wanted, "If-Range": note.validator} if note.validator else None

    async def _transfer(self, offset: int, headers: dict[str, str]) -> int | None:
        """Receives from `offset` on. Returns the size of the whole, None when the server never said it."""
        async with self._client.request("GET", self._file.url, headers) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise FetchError(f"{self._file.url} comes compressed though that was not asked for; serve it as it is")
            offset, whole = self._place(response, offset)
            promised = self._file.size_bytes if self._file.content_id else None
            if promised is not None and whole is not None and whole != promised:
                raise FetchError(f"{self._file.url} has {whole} bytes, the file list says {promised}")
            whole = promised if whole is None else whole
            await self._start_hash(offset)
            validator = read_validator(response)
            self._write_note(Part(self._file.content_id or validator, validator, whole))
            with self._partial.open("ab" if offset else "wb") as sink:
                got = await self._receive(response, sink, offset, whole)
        if whole is not None and got < whole:
            raise Transient(f"the connection ended after {got} of {whole} bytes")
        return whole

    def _place(self, response: aiohttp.ClientResponse, offset: int) -> tuple[int, int | None]:
        """(where the body starts, size of the whole). Raises Transient after dropping a partial that does not fit."""
        if response.status == 200:
            if offset:
                self._client.say(f"{self._file.name}: starts over, the server has another version or no ranges")
            return 0, response.content_length
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        start = int(match[1]) if match and match[1] else None
        whole = int(match[2]) if match and match[2] != "*" else None
        note = self._read_note()
        changed = not self._file.content_id and note is not None and note.validator != read_validator(response)
        if response.status == 206 and start == offset and not changed:
            return offset, whole
        self._drop()
        raise Transient(f"the server answers {response.status} to bytes from {offset}; starting over")

    async def _receive(self, response: aiohttp.ClientResponse, sink: BinaryIO, offset: int, whole: int | None) -> int:
        """Returns how many bytes of the file are there now."""
        try:
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                offset = await self._keep(sink, chunk, offset, whole)
        except aiohttp.ClientPayloadError as error:
            offset = await self._keep(sink, _read_rest(response.content), offset, whole)
            raise Transient(f"the connection ended after {offset} of {whole or 'unknown'} bytes") from error
        return offset

    async def _keep(self, sink: BinaryIO, chunk: bytes, offset: int, whole: int | None) -> int:
        if whole is not None and offset + len(chunk) > whole:
            raise FetchError(f"{self._file.url} sends more than the {whole} bytes it promised")
        await asyncio.to_thread(self._take, sink, chunk)
        self._received_bytes += len(chunk)
        self._report(offset + len(chunk))
        return offset + len(chunk)

    def _take(self, sink: BinaryIO, chunk: bytes) -> None:
        sink.write(chunk)
        if self._hash is not None:
            self._hash.update(chunk)

    async def _start_hash(self, offset: int) -> None:
        if self._file.sha256:
            self._hash = hashlib.sha256()
        elif self._file.git_sha1 and self._file.size_bytes is not None:
            header = b"blob %d\0" % self._file.size_bytes
            self._hash = hashlib.sha1(header, usedforsecurity=False)
        if offset and self._hash is not None:
            await asyncio.to_thread(self._hash_file)

    def _hash_file(self) -> None:
        with self._partial.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                self._hash.update(chunk)

    def _finish(self, whole: int | None) -> None:
        """Verifies, then gives the file its name."""
        size = self._partial.stat().st_size
        if self._hash is not None and self._hash.hexdigest() != (want := self._file.sha256 or self._file.git_sha1):
            self._drop()
            if self._resumed and not self._restarted:
                self._restarted = True
                raise Transient("the checksum of the resumed file is wrong; starting over")
            kind = "sha256" if self._file.sha256 else "git sha1"
            raise FetchError(f"{self._file.name}: {kind} is {self._hash.hexdigest()}, should be {want}; run again")
        try:
            if self._file.name.endswith(".safetensors"):
                check_safetensors(self._partial, self._final)
            elif self._file.name.endswith(".json"):
                json.loads(self._partial.read_bytes())
        except (FetchError, ValueError) as error:
            self._drop()
            raise FetchError(f"what {self._file.url} sends is damaged: {error}") from error
        note = self._read_note()
        if note is not None:
            self._write_note(Part(note.version, note.validator, size))
        with self._partial.open("rb+") as file:
            os.fsync(file.fileno())
        self._partial.replace(self._final)

    def _drop(self) -> None:
        self._report(0)
        self._partial.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _read_note(self) -> Part | None:
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=Part)
        except (OSError, msgspec.DecodeError):
            return None

    def _write_note(self, part: Part) -> None:
        """Atomically: a killed process leaves the old note or the new one."""
        fresh = self._note.with_name(self._note.name + ".new")
        fresh.write_bytes(msgspec.json.encode(part))
        fresh.replace(self._note)


def _read_rest(content: aiohttp.StreamReader) -> bytes:
    """What arrived before the connection broke: aiohttp raises ahead of it, and with many cuts nothing would stay."""
    content.set_exception(None)  # type: ignore[arg-type]
    return content.read_nowait(-1)
