"""The compiled kernels: built ahead into the image, else once by g++ into the cache, under the hash of their sources.

`python -m tandem_runtime.ops.build` builds ahead, beside the sources.
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
from hashlib import blake2b
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent / "source"
AHEAD: Final = Path(__file__).parent / "built"
FLAGS: Final = (
    *("-std=c++17", "-O3", "-fPIC", "-Wall", "-Wextra"),
    # none of these changes a sum's order; without them GCC neither fuses multiply-add nor vectorises rounding
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)
LINK: Final = ("-shared", "-pthread", "-static-libstdc++", "-static-libgcc")
"""The image has no libstdc++ of the builder's version."""
COMPILE_SECONDS: Final = 900
"""A processor shared by many needs that long for 15 s of work."""


class BuildError(Exception):
    """There are no compiled kernels here; the message says why."""


def content() -> str:
    """Hash of all that decides what the library is."""
    digest = blake2b(f"{FLAGS} {LINK} {platform.machine()}".encode(), digest_size=12)
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where libraries are kept that were not built ahead."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem" / "ops"


def find_library() -> Path:
    """The shared library, compiled now when it is nowhere. Raises BuildError."""
    name = f"tandem_ops-{content()}.so"
    ahead = AHEAD / name
    if ahead.is_file():
        return ahead
    cached = cache_folder() / name
    if not cached.is_file():
        compile_into(cached)
    return cached


def compile_into(target: Path) -> None:
    """Compiles the sources into `target`; one process at a time. Raises BuildError."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise BuildError("no g++ to compile the kernels with, and none were built ahead")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / "lock").open("w") as lock, _held(lock.fileno()):
            if not target.is_file():
                _compile(compiler, target)
    except OSError as error:
        raise BuildError(f"{target.parent} cannot be written: {error.strerror}") from error


class _held:  # noqa: N801 - reads as a word of the with statement
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def _compile(compiler: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = [(source, Path(folder) / f"{source.stem}.o") for source in sorted(SOURCE.glob("*.cpp"))]
        commands = [[compiler, *FLAGS, "-c", str(source), "-o", str(made)] for source, made in objects]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(_run, commands))
        library = Path(folder) / "library.so"
        _run([compiler, *LINK, *(str(made) for _, made in objects), "-o", str(library)])
        library.replace(target)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{' '.join(command)} took over {COMPILE_SECONDS} s") from error
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed: {done.stderr[-500:]}")


def main() -> int:
    """Builds ahead; prints where."""
    target = AHEAD / f"tandem_ops-{content()}.so"
    try:
        compile_into(target)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
