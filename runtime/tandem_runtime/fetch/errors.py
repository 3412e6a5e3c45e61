"""What can go wrong while fetching, each as one line for a person."""

from __future__ import annotations


class UriError(ValueError):
    """The URI or a flag is wrong; trying again cannot help."""


class FetchError(Exception):
    """The model cannot be brought or is damaged; the message names the URL or file, the numbers and what to do."""


class NotFound(FetchError):
    """The server says that there is no such thing."""


class Refused(FetchError):
    """The server says that we may not."""


class Transient(Exception):
    """Worth another try. `retry_after_seconds` is what the server asked for, if it did."""

    def __init__(self, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds
