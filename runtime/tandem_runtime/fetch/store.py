"""The folder that is filled: one fetch at a time, room for what comes, and a record when all is there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from tandem_runtime.fetch.errors import FetchError
from tandem_runtime.fetch.uri import STATE_FOLDER

SCHEMA: Final = 1
SPARE_BYTES: Final = 1 << 20
"""Left free beside the model: notes, logs, the file system's own needs."""
LOCK_POLL_SECONDS: Final = 0.5


class Record(msgspec.Struct, frozen=True):
    """Written last: the folder holds all of `uri`; `files` are sizes in bytes by name."""

    uri: str
    tokenizer_only: bool
    files: dict[str, int]
    schema: int = SCHEMA


class Store:
    """Writes only below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._record = folder / STATE_FOLDER / "complete.json"

    def is_complete(self, uri: str, tokenizer_only: bool) -> bool:
        """All of it was brought before and is still there. Raises FetchError when the folder holds another model."""
        try:
            record = msgspec.json.decode(self._record.read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            return False
        if record.uri != uri:
            raise FetchError(f"{self.folder} holds {record.uri}, not {uri}; use another folder or delete this one")
        if record.tokenizer_only and not tokenizer_only:
            return False
        paths = {self.folder / name: size for name, size in record.files.items()}
        return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())

    def write_record(self, uri: str, tokenizer_only: bool, names: list[str]) -> None:
        """From now on the folder is complete; what was kept for resuming goes."""
        sizes = {name: (self.folder / name).stat().st_size for name in sorted(names)}
        fresh = self._record.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(Record(uri, tokenizer_only, sizes))))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._record)
        shutil.rmtree(part_folder(self.folder), ignore_errors=True)

    @asynccontextmanager
    async def lock(self, say: Callable[[str], None]) -> AsyncIterator[None]:
        """Waits for another fetch into the same folder; a killed one holds nothing. Raises FetchError."""
        try:
            part_folder(self.folder).mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / STATE_FOLDER / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise FetchError(
                f"{self.folder} cannot be written: {error.strerror}; --to needs a writable folder"
            ) from error
        try:
            waited = False
            while not _try_lock(descriptor):
                if not waited:
                    say(f"another fetch fills {self.folder}; waiting for it")
                waited = True
                await asyncio.sleep(LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def check_room(self, needed_bytes: int, free_bytes: int) -> None:
        """Raises FetchError with the numbers when what is still to come does not fit."""
        if needed_bytes > 0 and needed_bytes + SPARE_BYTES > free_bytes:
            raise FetchError(
                f"{self.folder} has {format_bytes(free_bytes)} free, the model needs {format_bytes(needed_bytes)} more "
                f"and {format_bytes(SPARE_BYTES)} to spare; use a larger volume"
            )


def part_folder(folder: Path) -> Path:
    """Where partial files live until all is complete."""
    return folder / STATE_FOLDER / "parts"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def format_bytes(count: float) -> str:
    """ "512 B", "1.5 MiB", "14.9 GiB"."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
