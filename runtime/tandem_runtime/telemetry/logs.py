"""One JSON object per line on stdout. Prompts and answers are never logged."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec


class JsonFormatter(logging.Formatter):
    """time, level, logger, message; `role` and `pod` of this process; `extra={"fields": {...}}`; exception."""

    def __init__(self, role: str, pod: str) -> None:
        super().__init__()
        self._who = {"role": role, "pod": pod}

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._who,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()

    def become(self, role: str) -> None:
        """In lines from now on."""
        self._who = {**self._who, "role": role}


def set_role(role: str) -> None:
    """The process has another role from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter):
            handler.formatter.become(role)


def configure_logging(role: str, pod: str, level: str = "INFO") -> None:
    """Replaces the root logger's handlers."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(role, pod))
    logging.basicConfig(level=level, handlers=[handler], force=True)
