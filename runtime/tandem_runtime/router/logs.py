"""Log lines as JSON objects on one stream."""

from __future__ import annotations

import logging
from typing import TextIO

import msgspec


class JsonFormatter(logging.Formatter):
    """`extra={"fields": {...}}` adds fields to the line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; times are seconds since the epoch."""
        line: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def log_as_json(stream: TextIO, level: int) -> None:
    """Everything that the process logs goes there."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
