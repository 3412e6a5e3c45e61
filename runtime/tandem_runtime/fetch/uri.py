"""Model URIs: hf://org/repo[@revision], http(s)://host/folder/, pvc://claim/path, file:///path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from yarl import URL

from tandem_runtime.fetch.errors import FetchError, UriError

STATE_FOLDER: Final = ".tandem"
"""Below the model folder: partial files and the record of what is complete."""

_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_REVISION = re.compile(r"[\w./-]+")


@dataclass(frozen=True, slots=True)
class HubUri:
    """A repository of a Hugging Face style hub."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return f"hf://{self.repository}@{self.revision}"


@dataclass(frozen=True, slots=True)
class WebUri:
    """A folder on a web server; `folder` ends in a slash."""

    folder: URL

    def __str__(self) -> str:
        return str(self.folder.with_user(None))


@dataclass(frozen=True, slots=True)
class ClaimUri:
    """A folder on a PersistentVolumeClaim that is mounted already."""

    claim: str
    path: str

    def __str__(self) -> str:
        return f"pvc://{self.claim}/{self.path}"


@dataclass(frozen=True, slots=True)
class FolderUri:
    """A folder that is there already: in the image, on the machine."""

    folder: Path

    def __str__(self) -> str:
        return f"file://{self.folder}"


ModelUri = HubUri | WebUri | ClaimUri | FolderUri


def parse_uri(uri: str) -> ModelUri:
    """Raises UriError that says which forms there are."""
    scheme, separator, rest = uri.partition("://")
    if separator:
        if scheme == "hf":
            return _parse_hub(uri, rest)
        if scheme in ("http", "https"):
            return _parse_web(uri)
        if scheme == "pvc":
            return _parse_claim(uri, rest)
        if scheme == "file" and rest.startswith("/"):
            return FolderUri(Path(rest))
    raise UriError(
        f"{uri!r} is no model URI; use hf://org/repo@revision, https://host/folder/, pvc://claim/path or file:///path"
    )


def _parse_hub(uri: str, rest: str) -> HubUri:
    repository, _, revision = rest.rstrip("/").partition("@")
    revision = revision or "main"
    parts = (*repository.split("/"), *revision.split("/"))
    if not _REPOSITORY.fullmatch(repository) or not _REVISION.fullmatch(revision) or {".", "..", ""} & set(parts):
        raise UriError(f"{uri!r} is no hub URI; use hf://org/repo or hf://org/repo@revision")
    return HubUri(repository, revision)


def _parse_web(uri: str) -> WebUri:
    try:
        url = URL(uri)
    except ValueError as error:
        raise UriError(f"{uri!r} is no URL: {error}") from error
    if not url.host or url.query_string or url.fragment:
        raise UriError(f"{uri!r} is no folder of a web server; use https://host/folder/ without ? and #")
    return WebUri(url if url.path.endswith("/") else url.with_path(url.path + "/"))


def _parse_claim(uri: str, rest: str) -> ClaimUri:
    claim, _, path = rest.partition("/")
    clean = path.strip("/")
    if not claim or (clean and not _is_safe(clean)):
        raise UriError(f"{uri!r} is no claim URI; use pvc://claim/path, without .. in it")
    return ClaimUri(claim, clean)


def check_file_name(name: object, origin: str) -> str:
    """`name` when it is a plain relative path. Raises FetchError: a server must not write outside of the folder."""
    if isinstance(name, str) and _is_safe(name):
        return name
    raise FetchError(f"{origin} names the file {name!r}: refused, it is not a plain path inside the model folder")


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return (
        name.isprintable()
        and "\\" not in name
        and not PurePosixPath(name).is_absolute()
        and not {"", ".", "..", STATE_FOLDER} & set(parts)
    )
