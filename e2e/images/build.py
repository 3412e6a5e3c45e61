"""Builds both images as OCI archives: third-party packages at the bottom, our code on top, so that a change in our
code makes one small layer."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from e2e.images import oci
from e2e.images.cache import cache_folder, drop_unused, make_folder, replace_file
from e2e.images.code import code_layer
from e2e.images.kernels import kernels_layer
from e2e.images.layout import OPERATOR_IMAGE, RUNTIME_IMAGE, SITE_PACKAGES, image_config
from e2e.images.model import model_layer
from e2e.images.packages import Packages, base_packages, read_requirements, torch_packages
from e2e.images.rootfs import base_rootfs
from e2e.images.tools import ensure_tools

NAMES = {"runtime": (RUNTIME_IMAGE,), "operator": (OPERATOR_IMAGE,), "all": (OPERATOR_IMAGE, RUNTIME_IMAGE)}
LAYOUT_KEEP_SECONDS = 24 * 3600.0  # a layout is only read while it is loaded


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
            layers = [_layer(torch), *common, model_layer(folder), *kernels_layer(), code]
        images[name] = oci.assemble(name, layers, image_config(name), folder)
        say(f"{name} {images[name].digest[:19]} {_sizes(images[name])}")
    for part in ("packages", "rootfs", "models", "bytecode"):
        drop_unused(folder / part)
    return images


def build_images(which: str = "all", agreed: bool = False, cache: Path | None = None) -> dict[str, Path]:
    """Build; image name -> OCI layout folder, for `oci.copy_thin` into an import.

    A folder of hard links costs nothing to make; an archive would be another gigabyte to write for each change.
    """
    layouts = (cache if cache is not None else cache_folder()) / "layouts"
    layouts.mkdir(parents=True, exist_ok=True)
    images = assemble_images(which, agreed, cache)
    drop_unused(layouts, LAYOUT_KEEP_SECONDS)
    return {
        name: make_folder(layouts / f"{_short(name)}-{image.digest[7:31]}", image.link)
        for name, image in images.items()
    }


def write_archives(layouts: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Write whole archives, for `docker load` and the like; image name -> `folder`/tandem-runtime.tar."""
    archives = {name: folder / f"{_short(name)}.tar" for name in layouts}
    for name, archive in archives.items():
        with replace_file(archive) as temporary, temporary.open("wb") as file:
            oci.copy_thin(layouts[name], file)
    return archives


def _short(name: str) -> str:
    return name.rpartition("/")[2].partition(":")[0]


def _layer(packages: Packages) -> oci.Layer:
    return oci.Layer(SITE_PACKAGES, packages.folder, key=packages.key)


def _sizes(image: oci.Image) -> str:
    sizes = [blob.size_bytes for blob in image.blobs if blob.digest in image.layers]
    return f"layers {' + '.join(f'{size / 1e6:.1f}' for size in sizes)} MB"
