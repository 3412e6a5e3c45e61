"""Compiled libraries: built ahead into the image, else once by g++ into the cache, under the hash of their sources.

`python -m tandem_runtime.native.build` builds all of them ahead, beside their sources.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parents[1]
LINK: Final = ("-shared", "-pthread", "-static-libstdc++", "-static-libgcc")
"""The image has no libstdc++ of the builder's version."""
COMPILE_SECONDS: Final = 900
"""A processor shared by many needs that long for 15 s of work."""


class BuildError(Exception):
    """There is no compiled library here; the message says why."""


@dataclass(frozen=True, slots=True)
class Library:
    """Sources in `source` of a package; `flags` for each of them."""

    name: str
    package: str
    flags: tuple[str, ...]

    @property
    def source(self) -> Path:
        """C++ files and what they include."""
        return PACKAGE / self.package / "source"

    @property
    def ahead(self) -> Path:
        """Where an image holds it."""
        return PACKAGE / self.package / "built" / self.file_name()

    def file_name(self) -> str:
        """With the hash of all that decides what it is."""
        digest = blake2b(f"{self.flags} {LINK} {platform.machine()}".encode(), digest_size=12)
        for path in sorted(self.source.iterdir()):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return f"{self.name}-{digest.hexdigest()}.so"


_COMMON: Final = ("-std=c++17", "-O3", "-fPIC", "-Wall", "-Wextra")
OPS: Final = Library(
    "tandem_ops",
    "ops",
    # none of these changes a sum's order; without them GCC neither fuses multiply-add nor vectorises rounding
    (*_COMMON, "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)
LANES: Final = Library("tandem_lanes", "router", _COMMON)
LIBRARIES: Final = (OPS, LANES)


def cache_folder() -> Path:
    """Where libraries are kept that were not built ahead."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem" / "native"


def find_library(library: Library) -> Path:
    """The shared library, compiled now when it is nowhere. Raises BuildError."""
    if library.ahead.is_file():
        return library.ahead
    cached = cache_folder() / library.file_name()
    if not cached.is_file():
        compile_into(cached, library)
    return cached


def compile_into(target: Path, library: Library) -> None:
    """Compiles the sources into `target`; one process at a time. Raises BuildError."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise BuildError(f"no g++ to compile {library.name} with, and it was not built ahead")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / "lock").open("w") as lock, _held(lock.fileno()):
            if not target.is_file():
                _compile(compiler, target, library)
    except OSError as error:
        raise BuildError(f"{target.parent} cannot be written: {error.strerror}") from error


class _held:  # noqa: N801 - reads as a word of the with statement
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def _compile(compiler: str, target: Path, library: Library) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = [(source, Path(folder) / f"{source.stem}.o") for source in sorted(library.source.glob("*.cpp"))]
        commands = [[compiler, *library.flags, "-c", str(source), "-o", str(made)] for source, made in objects]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(_run, commands))
        linked = Path(folder) / "library.so"
        _run([compiler, *LINK, *(str(made) for _, made in objects), "-o", str(linked)])
        linked.replace(target)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{' '.join(command)} took over {COMPILE_SECONDS} s") from error
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed: {done.stderr[-500:]}")


def main() -> int:
    """Builds ahead; prints where."""
    for library in LIBRARIES:
        try:
            compile_into(library.ahead, library)
        except BuildError as error:
            print(error, file=sys.stderr)
            return 1
        print(library.ahead)
    return 0


if __name__ == "__main__":
    sys.exit(main())
