"""Deterministic OCI image archives from folders and in-memory files, without Docker.

Layers are uncompressed: their digest is their diff id, importing one is a copy, and a cached one is never made twice.
A thin archive leaves out the blobs that the node's store already has.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tarfile
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from e2e.images.cache import cache_folder, replace_file
from e2e.images.layers import COPY_BYTES, Blob, File, Layer, add_bytes, store_layer, tar_entry

__all__ = [
    "Blob",
    "Config",
    "File",
    "Image",
    "ImageInfo",
    "Layer",
    "assemble",
    "copy_thin",
    "read_index",
    "write_archive",
]

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Config:
    """What the container runtime needs to start the image."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/bin:/usr/bin:/bin",)
    user: str = "65532:65532"
    working_dir: str = "/"


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
                    add_bytes(archive, path, blob.content)
                else:
                    with blob.path.open("rb") as content:
                        archive.addfile(tar_entry(path, size_bytes=blob.size_bytes), content)

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
                yield tar_entry(path.relative_to(archive).as_posix(), size_bytes=path.stat().st_size), file
    else:
        with tarfile.open(archive) as source:
            for entry in source:
                yield entry, source.extractfile(entry)


def _json_blob(value: object) -> Blob:
    content = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return Blob(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), content=content)


def _describe(blob: Blob, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size_bytes}
