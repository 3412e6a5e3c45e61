"""Deterministic OCI image archives from folders and in-memory files, without Docker.

Layers are uncompressed: their digest is their diff id, importing one is a copy, and a cached one is never made twice.
A thin archive leaves out the blobs that the node's store already has.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import stat
import tarfile
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from e2e.images.cache import cache_folder, drop_unused, replace_file, temporary_file

FORMAT = "2"  # change it when the same input must give another layer
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
COPY_BYTES = 1 << 20
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


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
class Config:
    """What the container runtime needs to start the image."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/bin:/usr/bin:/bin",)
    user: str = "65532:65532"
    working_dir: str = "/"


@dataclass(frozen=True)
class Blob:
    """A stored blob: `digest` is "sha256:" and 64 hex digits."""

    digest: str
    size_bytes: int
    path: Path | None = None
    content: bytes = b""


@dataclass(frozen=True)
class ImageInfo:
    """An archive that was written: the image's manifest digest, its layers bottom first, the size of the archive."""

    name: str
    digest: str
    layers: tuple[str, ...]
    archive_bytes: int


@dataclass(frozen=True)
class Image:
    """An image whose blobs all lie in the cache; `write` makes archives of it."""

    name: str
    digest: str
    index: bytes
    blobs: tuple[Blob, ...]
    layers: tuple[str, ...]

    def write(self, out: Path, have: Set[str] = frozenset()) -> ImageInfo:
        """Write the archive to `out`, without the blobs whose digests are in `have`."""
        with replace_file(out) as temporary:
            with temporary.open("wb") as file:
                self.stream(file, have)
            size_bytes = temporary.stat().st_size
        return ImageInfo(self.name, self.digest, self.layers, size_bytes)

    def stream(self, file: BinaryIO, have: Set[str] = frozenset()) -> None:
        """Write the archive to an open file or pipe, for example the stdin of an import."""
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.GNU_FORMAT, bufsize=COPY_BYTES) as archive:
            for path, blob in self._files().items():
                if blob.digest in have:
                    continue
                if blob.path is None:
                    _add_bytes(archive, path, blob.content)
                else:
                    with blob.path.open("rb") as content:
                        archive.addfile(_entry(path, size_bytes=blob.size_bytes), content)

    def link(self, folder: Path) -> None:
        """Fill `folder` with the image as an OCI layout: the same files, but the layers are hard links to the cache."""
        for name, blob in self._files().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if blob.path is None:
                path.write_bytes(blob.content)
            else:
                os.link(blob.path, path)

    def _files(self) -> dict[str, Blob]:
        layout = Blob("", 0, content=b'{"imageLayoutVersion":"1.0.0"}')
        blobs = {f"blobs/{blob.digest.replace(':', '/')}": blob for blob in self.blobs}
        return {"oci-layout": layout, "index.json": Blob("", 0, content=self.index), **blobs}


def write_archive(
    name: str, out: Path, layers: list[Layer], config: Config, have: Set[str] = frozenset(), cache: Path | None = None
) -> ImageInfo:
    """Build the image `name` ("localhost/tandem-runtime:dev") from `layers`, bottom first, and write it to `out`."""
    return assemble(name, layers, config, cache).write(out, have)


def assemble(name: str, layers: list[Layer], config: Config, cache: Path | None = None) -> Image:
    """Store the layers in the cache and return the image. Same layers and config give the same digest."""
    folder = cache if cache is not None else cache_folder()
    stored = [store_layer(layer, folder) for layer in layers]
    system = {"architecture": ARCHITECTURES.get(platform.machine(), platform.machine()), "os": "linux"}
    settings = {
        "Env": list(config.env),
        "User": config.user,
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint) or None,
        "Cmd": list(config.command) or None,
    }
    settings = {key: value for key, value in settings.items() if value}
    rootfs = {"type": "layers", "diff_ids": [blob.digest for blob in stored]}
    image_config = _json_blob({**system, "config": settings, "rootfs": rootfs})
    manifest = _json_blob(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _describe(image_config, CONFIG_TYPE),
            "layers": [_describe(blob, LAYER_TYPE) for blob in stored],
        }
    )
    # containerd takes the full name from the first annotation; other tools read the second
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    entry = {**_describe(manifest, MANIFEST_TYPE), "annotations": annotations, "platform": system}
    index = _json_blob({"schemaVersion": 2, "manifests": [entry]}).content
    digests = tuple(blob.digest for blob in stored)
    return Image(name, manifest.digest, index, (image_config, manifest, *stored), digests)


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
                    archive.addfile(_entry(parent, mode=0o755, kind=tarfile.DIRTYPE))

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
                    archive.addfile(_entry(name, mode=0o777, kind=tarfile.SYMTYPE, target=file.target))
                elif file.folder:
                    folders.add(name)
                    archive.addfile(_entry(name, mode=file.mode, kind=tarfile.DIRTYPE))
                else:
                    _add_bytes(archive, name, file.content, file.mode)


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


def read_index(archive: Path) -> tuple[str, str]:
    """Name and manifest digest of the image in an archive or layout. Raises ValueError when it is neither."""
    try:
        if archive.is_dir():
            return _parse_index((archive / "index.json").read_bytes())
        with tarfile.open(archive) as content:
            index = content.extractfile("index.json")
            return _parse_index(index.read() if index else b"")
    except (OSError, tarfile.TarError, KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{archive} is no OCI archive of ours ({error!r}); remove it and build again") from error


def copy_thin(archive: Path, out: IO[bytes], have: Set[str] = frozenset()) -> int:
    """Stream an archive or layout as an archive without the blobs in `have` ("sha256:..."). Bytes left out."""
    left_out_bytes = 0
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, bufsize=COPY_BYTES) as target:
        for entry, content in _read_entries(archive):
            if entry.name.startswith("blobs/") and entry.name.removeprefix("blobs/").replace("/", ":") in have:
                left_out_bytes += entry.size
            else:
                target.addfile(entry, content)
    return left_out_bytes


def _parse_index(index: bytes) -> tuple[str, str]:
    manifest = json.loads(index)["manifests"][0]
    return manifest["annotations"]["io.containerd.image.name"], manifest["digest"]


def _read_entries(archive: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    if archive.is_dir():
        for path in sorted(path for path in archive.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                yield _entry(path.relative_to(archive).as_posix(), size_bytes=path.stat().st_size), file
    else:
        with tarfile.open(archive) as source:
            for entry in source:
                yield entry, source.extractfile(entry)


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
        archive.addfile(_entry(name, mode=0o777, kind=tarfile.SYMTYPE, target=os.readlink(path)))
    elif stat.S_ISDIR(status.st_mode):
        archive.addfile(_entry(name, mode=mode, kind=tarfile.DIRTYPE))
    else:
        with path.open("rb") as content:
            archive.addfile(_entry(name, mode=mode, size_bytes=status.st_size), content)


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    archive.addfile(_entry(name, mode=mode, size_bytes=len(content)), io.BytesIO(content))


def _entry(
    name: str, mode: int = 0o644, size_bytes: int = 0, kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size, entry.type, entry.linkname = mode, size_bytes, kind, target
    entry.uname = entry.gname = "root"
    return entry


def _files(source: Mapping[str, bytes | File]) -> dict[str, File]:
    return {name: File(file) if isinstance(file, bytes) else file for name, file in source.items()}


def _json_blob(value: object) -> Blob:
    content = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return Blob(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), content=content)


def _describe(blob: Blob, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size_bytes}
