"""W3C trace context (traceparent), accepted from clients or made in the router and carried to every pod in the
request: 00-<32 hex: trace>-<16 hex: span of whoever sent this>-<2 hex: flags>.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

HEADER: Final = "traceparent"
SAMPLED: Final = 0x01
PATTERN: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
MAX_CHARACTERS: Final = 256
"""Versions after 00 may add fields; nobody's are that long."""


class TraceContext(NamedTuple):
    """`span_id` is of the sender: the parent of what the receiver does."""

    trace_id: str
    span_id: str
    flags: int = SAMPLED

    def header(self) -> str:
        """As it is sent on, in the version that everybody reads."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self, random_bytes: Callable[[int], bytes]) -> TraceContext:
        """The same trace with a span of one's own."""
        return self._replace(span_id=_identifier(random_bytes, 8))


def read_trace(header: str) -> TraceContext | None:
    """None for what is not a valid traceparent: then a new trace begins, as the standard says."""
    found = PATTERN.fullmatch(header.strip()) if len(header) <= MAX_CHARACTERS else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & SAMPLED)


def new_trace(random_bytes: Callable[[int], bytes]) -> TraceContext:
    """Of a request that came without one."""
    return TraceContext(_identifier(random_bytes, 16), _identifier(random_bytes, 8))


def _identifier(random_bytes: Callable[[int], bytes], size: int) -> str:
    """Hex; not all zeros, which would mean none."""
    drawn = random_bytes(size).hex()
    return drawn if drawn.strip("0") else f"{drawn[:-1]}1"


def trace_id_of(header: str) -> str:
    """For logs; empty without a trace."""
    found = read_trace(header) if header else None
    return found.trace_id if found is not None else ""
