"""API keys from a folder, as a Secret is mounted: one file for each. Read again when it changes, without a restart."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tandem_runtime.contracts.key_entry import MAX_ENTRY_BYTES
from tandem_runtime.router.keys import KeyRing, make_ring

log = logging.getLogger(__name__)

DATA_LINK: Final = "..data"
"""The kubelet writes a new folder and moves this link: all entries change at once."""
KEEP_SECONDS: Final = 30.0
"""How long known keys count while the folder cannot be read. A disk may hiccup; but whoever takes the folder away
wants the door closed."""
NAMED_ENTRIES: Final = 5
"""Invalid ones that a message names."""


class KeyFolder:
    """`ring` is what counts now. Fails closed: whatever cannot be read or understood opens nothing."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.ring = KeyRing()
        self.problem = ""
        """Why no key counts; empty while at least one does."""
        self._path = path
        self._clock = clock
        self._seen: object = None
        self._read_at = clock()
        self._told = ""

    def look(self) -> None:
        """Cheap when nothing has changed. Call it every second. Never raises."""
        now, unreadable = self._clock(), ""
        try:
            seen = self._version()
            if seen != self._seen:
                self.ring = make_ring(self._read())
                self._seen = seen
                log.info("API keys: %d valid, %d invalid", len(self.ring.keys), len(self.ring.invalid))
            self._read_at = now
        except OSError as error:
            unreadable = f"API keys cannot be read from {self._path} ({error.strerror})"
            if now - self._read_at >= KEEP_SECONDS:
                self.ring, self._seen = KeyRing(), None
        self._tell(unreadable)

    def warning(self) -> str:
        """Entries that do not count though others do; empty without."""
        invalid = self.ring.invalid
        if not invalid:
            return ""
        named = "; ".join(f"{name}: {why}" for name, why in list(invalid.items())[:NAMED_ENTRIES])
        more = f"; and {len(invalid) - NAMED_ENTRIES} more" if len(invalid) > NAMED_ENTRIES else ""
        return f"{len(invalid)} API keys do not count: {named}{more}"

    def _tell(self, unreadable: str) -> None:
        """Each new state once, never with key material."""
        if self.ring.keys:
            self.problem = ""
        else:
            advice = "put one into the Secret with `tandem-runtime keys new`"
            self.problem = f"no valid API key: {unreadable or self.warning() or f'{self._path} is empty'}; {advice}"
        said = self.problem or "; ".join(filter(None, (unreadable, self.warning())))
        if said and said != self._told:
            log.warning("%s%s", said, "; the keys known before still count" if unreadable and not self.problem else "")
        self._told = said

    def _version(self) -> object:
        """Changes whenever an entry does."""
        data = self._path / DATA_LINK
        if data.is_symlink():
            status = data.stat()
            return os.readlink(data), status.st_ino, status.st_mtime_ns
        with os.scandir(self._path) as entries:
            return sorted((entry.name, *_stamp(entry.stat())) for entry in entries if _is_key(entry))

    def _read(self) -> dict[str, bytes]:
        """Of one generation: the link may move while we read."""
        data = self._path / DATA_LINK
        folder = data.resolve(strict=True) if data.is_symlink() else self._path
        with os.scandir(folder) as entries:
            return {entry.name: _content(entry.path) for entry in entries if _is_key(entry)}


def _is_key(entry: os.DirEntry[str]) -> bool:
    """Hidden names are the kubelet's own, or an editor's."""
    return not entry.name.startswith(".") and entry.is_file()


def _content(path: str) -> bytes:
    """A little more than an entry may have is enough to see that it has too much."""
    with open(path, "rb") as file:
        return file.read(MAX_ENTRY_BYTES + 1)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size
