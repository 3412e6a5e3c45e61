"""Layers of images: uncompressed, deterministic tars of folders or in-memory files, stored once for each key.

Without compression a layer's digest is its diff id, and importing it is a copy.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from e2e.images.cache import drop_unused, replace_file, temporary_file

FORMAT = "2"  # change it when the same input must give another layer
COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class File:
    """One entry of an in-memory layer: a regular file, a symbolic link (`target`) or an empty folder."""

    content: bytes = b""
    mode: int = 0o644
    target: str = ""
    folder: bool = False


@dataclass(frozen=True)
class Layer:
    """A folder or files (path -> content or File) that appear under `prefix` ("" is the root of the image).

    `key` names the content of a folder that never changes (made by `make_folder`); without it the folder is walked
    and its paths, modes, sizes and modification times are the key. Files are always keyed by content.
    """

    prefix: str
    source: Path | Mapping[str, bytes | File]
    key: str = ""


@dataclass(frozen=True)
class Blob:
    """A stored blob: `digest` is "sha256:" and 64 hex digits."""

    digest: str
    size_bytes: int
    path: Path | None = None
    content: bytes = b""


def store_layer(layer: Layer, cache: Path) -> Blob:
    """Return the layer's blob, made when the cache has none for its key. Safe with concurrent runs."""
    blobs, keys = cache / "blobs", cache / "layers"
    blobs.mkdir(parents=True, exist_ok=True)
    reference = keys / layer_key(layer)
    if reference.is_file():
        digest = reference.read_text()
        path = blobs / digest.partition(":")[2]
        if path.is_file():
            os.utime(reference)
            os.utime(path)
            return Blob(digest, path.stat().st_size, path)
    with temporary_file(blobs) as temporary:
        with temporary.open("wb", buffering=COPY_BYTES) as file:
            hashing = _HashingFile(file)
            write_layer(layer, hashing)
        digest = f"sha256:{hashing.hash.hexdigest()}"
        path = blobs / digest.partition(":")[2]
        temporary.replace(path)
    with replace_file(reference) as temporary:
        temporary.write_text(digest)
    for folder in (blobs, keys):
        drop_unused(folder)
    return Blob(digest, path.stat().st_size, path)


def layer_key(layer: Layer) -> str:
    """The name under which the cache keeps the layer: same key, same tar."""
    key = hashlib.sha256(f"{FORMAT}\0{layer.prefix}\0{layer.key}\0".encode())
    if layer.key:
        return key.hexdigest()
    if isinstance(layer.source, Path):
        for path in walk(layer.source):
            status = path.lstat()
            regular = (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else ()
            target = os.readlink(path) if path.is_symlink() else ""
            key.update(f"{path.relative_to(layer.source)}\0{status.st_mode}\0{regular}\0{target}\0".encode())
    else:
        for name, file in sorted(_files(layer.source).items()):
            content = hashlib.sha256(file.content).hexdigest()
            key.update(f"{name}\0{file.mode}\0{file.target}\0{file.folder}\0{content}\0".encode())
    return key.hexdigest()


def write_layer(layer: Layer, out: BinaryIO | _HashingFile) -> None:
    """Write the layer's tar: sorted, owned by root, no times, parents before children, hard links as files."""
    prefix = layer.prefix.strip("/")
    folders: set[str] = set()
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, bufsize=COPY_BYTES) as archive:

        def add_parents(path: str) -> None:
            for parent in reversed([str(parent) for parent in Path(path).parents if str(parent) != "."]):
                if parent not in folders:
                    folders.add(parent)
                    archive.addfile(tar_entry(parent, mode=0o755, kind=tarfile.DIRTYPE))

        if isinstance(layer.source, Path):
            for path in walk(layer.source):
                name = str(Path(prefix) / path.relative_to(layer.source))
                add_parents(name)
                folders.add(name)
                _add_path(archive, name, path)
        else:
            for relative, file in sorted(_files(layer.source).items()):
                name = str(Path(prefix) / relative.strip("/"))
                add_parents(name)
                if file.target:
                    archive.addfile(tar_entry(name, mode=0o777, kind=tarfile.SYMTYPE, target=file.target))
                elif file.folder:
                    folders.add(name)
                    archive.addfile(tar_entry(name, mode=file.mode, kind=tarfile.DIRTYPE))
                else:
                    add_bytes(archive, name, file.content, file.mode)


def walk(folder: Path) -> Iterator[Path]:
    """Everything below `folder` except sockets, pipes and devices; sorted, parents before children."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)
            yield from walk(Path(entry.path))
        elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def public_mode(mode: int) -> int:
    """Mode in the image: pods run as another user than the owner, and the umask here must not decide what they see."""
    if stat.S_ISDIR(mode):
        return 0o1777 if mode & stat.S_ISVTX else 0o755
    return 0o755 if mode & stat.S_IXUSR else 0o644


class _HashingFile(io.RawIOBase):
    """Passes writes on and hashes them."""

    def __init__(self, file: BinaryIO) -> None:
        self.hash = hashlib.sha256()
        self._file = file

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self._file.write(data)


def _add_path(archive: tarfile.TarFile, name: str, path: Path) -> None:
    status = path.lstat()
    mode = public_mode(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        archive.addfile(tar_entry(name, mode=0o777, kind=tarfile.SYMTYPE, target=os.readlink(path)))
    elif stat.S_ISDIR(status.st_mode):
        archive.addfile(tar_entry(name, mode=mode, kind=tarfile.DIRTYPE))
    else:
        with path.open("rb") as content:
            archive.addfile(tar_entry(name, mode=mode, size_bytes=status.st_size), content)


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    """Add a regular file with this content."""
    archive.addfile(tar_entry(name, mode=mode, size_bytes=len(content)), io.BytesIO(content))


def tar_entry(
    name: str, mode: int = 0o644, size_bytes: int = 0, kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tarfile.TarInfo:
    """A tar header of root, without times."""
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size, entry.type, entry.linkname = mode, size_bytes, kind, target
    entry.uname = entry.gname = "root"
    return entry


def _files(source: Mapping[str, bytes | File]) -> dict[str, File]:
    return {name: File(file) if isinstance(file, bytes) else file for name, file in source.items()}
