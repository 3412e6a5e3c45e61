"""The deployment's token, as it is now: a Secret may be replaced while pods run, and its mounted file changes then.

Read again whenever a connection is made or verified; connections that stand keep the token that both sides said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

TokenSource = Callable[[], str]
"""The token of this moment. Never raises, never waits."""


class TokenFileError(ValueError):
    """The message names the file and what is wrong with it."""


class TokenFile:
    """A TokenSource. A file that is missing, empty or unreadable later on leaves the last good token in use."""

    def __init__(self, path: Path) -> None:
        """Raises TokenFileError."""
        self._path = path
        self._seen = self._version()
        self._token = self._read()

    def __call__(self) -> str:
        """The token; the file is read again only when it has changed."""
        try:
            seen = self._version()
            if seen != self._seen:
                self._token = self._read()
                self._seen = seen
                log.info("token file %s was read again", self._path)
        except TokenFileError as error:
            log.warning("%s; the token known before stays in use", error)
        return self._token

    def _version(self) -> tuple[int, int, int]:
        """Through links: in a mounted Secret the file is one, and what changes is the folder behind it."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise TokenFileError(f"token file {self._path} cannot be read: {error.strerror}") from error
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self) -> str:
        try:
            token = self._path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise TokenFileError(f"token file {self._path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise TokenFileError(f"token file {self._path} is not text: {error}") from error
        if not token:
            raise TokenFileError(f"token file {self._path} is empty")
        return token
