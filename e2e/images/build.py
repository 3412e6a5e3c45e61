"""Builds both images as OCI archives: third-party packages at the bottom, our code on top, so that a change in our
code makes one small layer."""

from __future__ import annotations

import sys
import time
from collections.abc import Set
from pathlib import Path

from e2e.images import oci
from e2e.images.cache import cache_folder, drop_unused
from e2e.images.code import code_layer
from e2e.images.layout import OPERATOR_IMAGE, RUNTIME_IMAGE, SITE_PACKAGES, image_config
from e2e.images.model import model_layer
from e2e.images.packages import Packages, base_packages, read_requirements, torch_packages
from e2e.images.rootfs import base_rootfs
from e2e.images.tools import ensure_tools

NAMES = {"runtime": (RUNTIME_IMAGE,), "operator": (OPERATOR_IMAGE,), "all": (OPERATOR_IMAGE, RUNTIME_IMAGE)}
ARCHIVE_KEEP_SECONDS = 3600.0  # an archive is only read while it is loaded; a full one has hundreds of megabytes


class Progress:
    """Says each step with the seconds since the start, on stderr."""

    def __init__(self) -> None:
        self._start_seconds = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"images: {time.monotonic() - self._start_seconds:6.1f} s  {text}", file=sys.stderr, flush=True)


def assemble_images(which: str = "all", agreed: bool = False, cache: Path | None = None) -> dict[str, oci.Image]:
    """Build "runtime", "operator" or "all" into the cache; image name -> image, ready to be written or streamed.

    `agreed` allows the installation of missing Debian packages. Raises BuildError with what to do.
    """
    folder = cache if cache is not None else cache_folder()
    say = Progress()
    ensure_tools(agreed)
    requirements = read_requirements()
    base = base_packages(requirements, folder, say)
    rootfs = base_rootfs(folder)
    common = [_layer(base), oci.Layer("", rootfs.folder, key=rootfs.key)]
    code = code_layer(folder)
    images = {}
    for name in NAMES[which]:
        layers = [*common, code]
        if name == RUNTIME_IMAGE:
            torch = torch_packages(requirements, base, folder, say)
            if torch.warning:
                say(f"warning: {torch.warning}")
            layers = [_layer(torch), *common, model_layer(folder), code]
        images[name] = oci.assemble(name, layers, image_config(name), folder)
        say(f"{name} {images[name].digest[:19]} {_sizes(images[name])}")
    for part in ("packages", "rootfs", "models", "bytecode"):
        drop_unused(folder / part)
    return images


def build_images(
    which: str = "all", have: Set[str] = frozenset(), agreed: bool = False, cache: Path | None = None
) -> dict[str, Path]:
    """Build and write archives; image name -> archive. `have`: digests ("sha256:...") that need not be in them.

    The files are for loading now: those of older builds go after an hour.
    """
    folder = (cache if cache is not None else cache_folder()) / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    archives = {}
    for name, image in assemble_images(which, agreed, cache).items():
        missing = [blob.digest for blob in image.blobs if blob.digest not in have]
        kind = "" if len(missing) == len(image.blobs) else f"-thin-{oci.fingerprint(missing)}"
        path = folder / f"{name.rpartition('/')[2].partition(':')[0]}-{image.digest[7:23]}{kind}.tar"
        if path.is_file():
            path.touch()
        else:
            image.write(path, have)
        archives[name] = path
    drop_unused(folder, ARCHIVE_KEEP_SECONDS)
    return archives


def _layer(packages: Packages) -> oci.Layer:
    return oci.Layer(SITE_PACKAGES, packages.folder, key=packages.key)


def _sizes(image: oci.Image) -> str:
    sizes = [blob.size_bytes for blob in image.blobs if blob.digest in image.layers]
    return f"layers {' + '.join(f'{size / 1e6:.1f}' for size in sizes)} MB"
