"""The test of a link: a few blocks cross it, checked and timed. Pure; the clock is a parameter."""

from __future__ import annotations

from typing import Final

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.transfer.link_health import LinkHealth

BLOCK_BYTES: Final = 4 << 20
BLOCKS: Final = 3
"""The best of them counts: the first one warms up, one may meet a busy processor."""
ANSWER_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 60.0
"""While nothing else crosses the link."""


class LinkProbe:
    """Of one connection. Writes what it finds into `health`."""

    def __init__(self, health: LinkHealth) -> None:
        self._health = health
        self._sent_at: float | None = None
        self._nonce = self._left = 0
        self._best = 0.0
        self._next_at = float("-inf")

    def due(self, now: float, busy: bool) -> kv.Probe | None:
        """The block to ask for now, if any. `busy`: requests cross the link, which are not to wait for a test."""
        if self._sent_at is not None:
            if now - self._sent_at >= ANSWER_SECONDS:
                self._fail(f"no test block within {ANSWER_SECONDS:g} s", now)
            return None
        if busy or now < self._next_at:
            return None
        self._left, self._best = BLOCKS, 0.0
        return self._ask(now)

    def wants(self, block: kv.Block) -> bool:
        """It was asked for: its payload may be received."""
        return self._sent_at is not None and (block.nonce, block.len) == (self._nonce, BLOCK_BYTES)

    def take(self, block: kv.Block, intact: bool, now: float) -> kv.Probe | None:
        """A block came; the next one to ask for. What was not asked for is ignored."""
        if self._sent_at is None or not self.wants(block):
            return None
        if not intact:
            self._fail("a test block came damaged", now)
            return None
        self._best = max(self._best, BLOCK_BYTES / max(1e-9, now - self._sent_at))
        self._left -= 1
        if self._left:
            return self._ask(now)
        self._sent_at, self._next_at = None, now + AGAIN_SECONDS
        self._health.preflight, self._health.bytes_per_second = "ok", self._best
        return None

    def _ask(self, now: float) -> kv.Probe:
        self._sent_at = now
        self._nonce += 1
        return kv.Probe(self._nonce, BLOCK_BYTES)

    def _fail(self, words: str, now: float) -> None:
        self._sent_at, self._next_at = None, now + AGAIN_SECONDS
        self._health.preflight = "failed"
        self._health.fail(words, now)
