"""The cache folder of the image builder: made once under a lock, renamed into place, dropped when unused.

Several runs may share it, so nothing in it is ever seen half written and nothing is changed after its rename.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

KEEP_SECONDS = 14 * 24 * 3600.0  # what no build used for two weeks belongs to an old commit


def cache_folder() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/tandem/images`, made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "tandem" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; the file stays, its emptiness costs nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """Yield a new file in `folder` for the caller to rename; it is removed when it was not."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".new.")
    os.close(handle)
    path = Path(name)
    path.chmod(0o644)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block ends without an error."""
    with temporary_file(path.parent) as temporary:
        yield temporary
        temporary.replace(path)


def make_folder(path: Path, fill: Callable[[Path], None]) -> Path:
    """Return the folder `path`, filled by `fill(temporary folder)` when no run before did it.

    Concurrent callers wait for the first one. An error of `fill` leaves nothing behind and is passed on.
    """
    if not path.is_dir():
        with hold_lock(path.parent / f".{path.name}.lock"):
            if not path.is_dir():
                temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
                try:
                    temporary.chmod(0o755)
                    fill(temporary)
                    temporary.replace(path)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
    os.utime(path)
    return path


def drop_unused(folder: Path, keep_seconds: float = KEEP_SECONDS, now: float | None = None) -> list[Path]:
    """Remove the entries of `folder` that nobody touched for `keep_seconds`; return what was removed."""
    limit = (time.time() if now is None else now) - keep_seconds
    removed = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            if path.lstat().st_mtime >= limit:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:  # another run was faster
            continue
        removed.append(path)
    return removed
