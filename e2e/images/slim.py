"""A CPU-only copy of site-packages with a CUDA build of torch: 4.6 GB become some 600 MB, made of hard links.

No index is asked for another wheel: what a CPU never calls is left out, and where the loader would miss it a
stand-in takes its place (stubs.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from e2e.images.elf import Library, Symbol, is_elf, read_library
from e2e.images.stubs import build_stub

GPU_PACKAGES = ("nvidia", "triton", "cuda")
BUILD_PACKAGES = ("pip", "setuptools", "_distutils_hack", "pkg_resources", "wheel")
DROPPED_FOLDERS = frozenset({"torch/include", "torch/test", "torch/share", "torch/bin", "bin", "share"})
KEPT_FILES = frozenset({"torch/bin/torch_shm_manager"})  # torch starts it to share tensors between processes
DROPPED_SUFFIXES = (".a", ".pyc", ".pth", ".lock")
GPU_TORCH = frozenset({"libtorch_cuda.so", "libtorch_cuda_linalg.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so"})
# a static initialiser calls them, or they answer "no device": small, and kept as they are
REAL_LIBRARIES = frozenset({"libcudart.so.13", "libcupti.so.13", "libcufile.so.0", "libcudart.so.12", "libcupti.so.12"})


def keeps(path: str, gpu: bool) -> bool:
    """Whether a file (path relative to site-packages, with slashes) belongs into an image; `gpu`: with CUDA."""
    top, _, rest = path.partition("/")
    distribution = top.partition("-")[0] if top.endswith(".dist-info") else top
    if path in KEPT_FILES:
        return True
    if distribution in BUILD_PACKAGES or path.endswith(DROPPED_SUFFIXES):
        return False
    parents = path.split("/")[:-1]
    if any("/".join(parents[: n + 1]) in DROPPED_FOLDERS for n in range(len(parents))):
        return False
    if "tests" in parents[1:]:
        return False
    if gpu:
        return True
    return distribution.partition("_")[0] not in GPU_PACKAGES and not (
        top == "torch" and rest.rpartition("/")[2] in GPU_TORCH
    )


def link_tree(source: Path, target: Path, gpu: bool, without: Iterable[Path] = ()) -> None:
    """Hard-link what an image keeps of `source` into `target`, leaving out what the trees `without` have."""
    others = list(without)
    for folder, _, names in os.walk(source):
        relative = Path(folder).relative_to(source)
        chosen = [
            name
            for name in names
            if keeps((relative / name).as_posix(), gpu) and not any((o / relative / name).exists() for o in others)
        ]
        if chosen:
            (target / relative).mkdir(parents=True, exist_ok=True)
        for name in chosen:
            link_file(Path(folder) / name, target / relative / name)


def link_file(source: Path, target: Path) -> None:
    """Hard-link a file; copy it where the file system does not allow a link."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def add_stubs(full: Path, slim: Path) -> dict[str, int]:
    """Give the torch in `slim` stand-ins for what it still needs of `full`; returns soname -> symbols.

    A torch without CUDA needs none. Works on any torch whose GPU libraries have these names; the self-test decides.
    """
    dropped = {path.name: path for path in full.glob("nvidia/**/*.so*") if path.is_file()}
    dropped |= {name: full / "torch" / "lib" / name for name in GPU_TORCH if (full / "torch" / "lib" / name).is_file()}
    kept = [read_library(path) for path in slim.glob("torch/**/*.so*") if is_elf(path)]
    needed = sorted(frozenset().union(*(library.needed for library in kept)) & set(dropped))
    for name in set(needed) & REAL_LIBRARIES:
        link_file(dropped[name], slim / "torch" / "lib" / name)
        kept.append(read_library(dropped[name]))
    stubbed = [name for name in needed if name not in REAL_LIBRARIES]
    # a GPU library that nobody needs directly was loaded through another one: its symbols go to the first stand-in
    indirect = [read_library(dropped[name]) for name in sorted(GPU_TORCH & set(dropped)) if name not in needed]
    real = {name: read_library(dropped[name]) for name in stubbed}
    shares = share_symbols(kept, real, indirect)
    for name, symbols in shares.items():
        build_stub(slim / "torch" / "lib" / name, symbols)
    return {name: len(symbols) for name, symbols in shares.items()}


def share_symbols(kept: list[Library], real: dict[str, Library], indirect: list[Library]) -> dict[str, list[Symbol]]:
    """Which symbols each stand-in offers: those that `kept` takes and nothing kept offers, each in one stand-in."""
    offered = {name for library in kept for name in library.offers}
    taken = {name: symbol for library in kept for name, symbol in library.takes.items() if name not in offered}
    shares: dict[str, list[Symbol]] = {}
    for soname, library in real.items():
        shares[soname] = [library.offers[name] for name in sorted(taken) if name in library.offers]
        taken = {name: symbol for name, symbol in taken.items() if name not in library.offers}
    first = next((name for name in real if name in GPU_TORCH), None)
    if first is not None:
        extra = {name: other.offers[name] for other in indirect for name in taken if name in other.offers}
        shares[first] += [extra[name] for name in sorted(extra)]
    return shares
