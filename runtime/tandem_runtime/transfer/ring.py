"""Shared memory between two processes of one host: payloads go through a ring, messages stay on the connection.

D makes the file and proves with random bytes in it that P sees the same memory; then its name is removed. Like TCP it
is two-sided: P writes into the ring only, D copies out what its fences let through, so a late write hits no page.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.engine.events import Payload

RING_BYTES: Final = 16 << 20
"""Forty pages of a 0.5B model; in a container it fits /dev/shm's usual 64 MiB a few times."""
MAX_RING_BYTES: Final = 1 << 30
HEADER_BYTES: Final = 4096
PROOF_BYTES: Final = 32
READ_SLOT: Final = PROOF_BYTES // 8
"""Where the reader says how many bytes it has taken, cumulative; a whole aligned word, so never half written."""
PREFIX: Final = "tandem-kv-"
NAME: Final = re.compile(rf"{PREFIX}[0-9a-f]{{32}}")
DEFAULT_FOLDER: Final = Path("/dev/shm")


class RingError(Exception):
    """The memory cannot be used; payloads go over the connection, and this says why."""


class Ring:
    """One direction, one writer and one reader. Order and length of what is in it are told by messages elsewhere."""

    def __init__(self, memory: mmap.mmap) -> None:
        view = memoryview(memory)
        self._words = view[:HEADER_BYTES].cast("Q")
        self._data = view[HEADER_BYTES:]
        self.size_bytes = len(self._data)
        self.proof = bytes(view[:PROOF_BYTES])
        self._written = self._taken = 0

    def has_room(self, count: int) -> bool:
        """Writer: whether `count` bytes fit now."""
        return self._written + count - self._words[READ_SLOT] <= self.size_bytes

    def write(self, payload: Payload) -> None:
        """Writer, after `has_room`."""
        start = self._written % self.size_bytes
        head = min(len(payload), self.size_bytes - start)
        self._data[start : start + head] = payload[:head]
        self._data[: len(payload) - head] = payload[head:]
        self._written += len(payload)

    def read(self, count: int) -> bytes:
        """Reader: a copy of the next bytes. It is copied before it is checked: a peer gone mad cannot change it."""
        start = self._taken % self.size_bytes
        head = min(count, self.size_bytes - start)
        payload = bytes(self._data[start : start + head])
        if head < count:
            payload += bytes(self._data[: count - head])
        self.skip(count)
        return payload

    def skip(self, count: int) -> None:
        """Reader: the next bytes are not wanted."""
        self._taken += count
        self._words[READ_SLOT] = self._taken


class RingOffer:
    """D's side before the peer has answered. `remove` is to be called in any case."""

    def __init__(self, folder: Path, size_bytes: int = RING_BYTES) -> None:
        """Raises RingError when the folder has no such room."""
        self._path = folder / f"{PREFIX}{secrets.token_hex(16)}"
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise RingError(f"{folder}: {error.strerror}") from error
        try:
            os.write(file, secrets.token_bytes(PROOF_BYTES))
            # All of it now: memory that is missing later would end the process by SIGBUS.
            os.posix_fallocate(file, 0, HEADER_BYTES + size_bytes)
            self.ring = Ring(mmap.mmap(file, HEADER_BYTES + size_bytes))
        except OSError as error:
            self.remove()
            words = "is full" if error.errno == errno.ENOSPC else error.strerror
            raise RingError(f"{folder}: {words}; {size_bytes} bytes are needed for each prefill pod") from error
        finally:
            os.close(file)
        self.message = kv.Ring(self._path.name, size_bytes)

    def remove(self) -> None:
        """Takes the name away; who has it open keeps the memory."""
        with suppress(OSError):
            self._path.unlink()


def open_ring(folder: Path, offer: kv.Ring) -> Ring:
    """P's side. The name is the peer's word: only a file that this program could have made itself is opened. Raises
    RingError."""
    if not NAME.fullmatch(offer.name) or not 0 < offer.size_bytes <= MAX_RING_BYTES:
        raise RingError(f"{offer.name[:64]!r} of {offer.size_bytes} bytes is not a ring")
    try:
        file = os.open(folder / offer.name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise RingError(f"another host or container: {folder / offer.name}: {error.strerror}") from error
    try:
        status = os.fstat(file)
        if status.st_uid != os.geteuid() or status.st_size != HEADER_BYTES + offer.size_bytes:
            raise RingError(f"{offer.name} belongs to user {status.st_uid} and has {status.st_size} bytes")
        return Ring(mmap.mmap(file, status.st_size))
    except OSError as error:
        raise RingError(f"{offer.name}: {error.strerror}") from error
    finally:
        os.close(file)


def choose_folder(flag: str) -> Path | None:
    """`auto`: /dev/shm where that is, `off`: none; else a folder that pods of one node share."""
    if flag == "off":
        return None
    folder = DEFAULT_FOLDER if flag == "auto" else Path(flag)
    return folder if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) else None
