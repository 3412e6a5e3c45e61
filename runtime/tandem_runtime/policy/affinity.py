"""Which pod is likely to hold the beginning of a prompt: what was sent where, by the prefix hashes of the contract.

An estimate: pods evict without telling. The least recently sent blocks are forgotten first, as pods do it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from tandem_runtime.contracts.hashing import BLOCK_TOKENS

MAX_BLOCKS: Final = 200_000
"""6.4 million tokens, more than a few pods hold; about 40 MB."""


class PrefixIndex:
    """Blocks are hashes chained over their predecessors, so a block that matches matches from the start."""

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._holders: OrderedDict[bytes, set[str]] = OrderedDict()
        self._pods: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def note(self, incarnation: str, blocks: Sequence[bytes]) -> None:
        """The pod gets or has computed a prompt of these blocks."""
        for block in reversed(blocks):  # a prefix outlives what follows it
            holders = self._holders.get(block)
            if holders is None:
                holders = self._holders[block] = set()
            else:
                self._holders.move_to_end(block)
            holders.add(incarnation)
        self._pods[incarnation] = self._pods.get(incarnation, 0) + len(blocks)
        while len(self._holders) > self._max_blocks:
            self._holders.popitem(last=False)

    def drop(self, incarnation: str) -> None:
        """The pod is gone with all it held. Costs a walk over all blocks, once in a pod's life."""
        if self._pods.pop(incarnation, None) is None:
            return
        for block in [block for block, holders in self._holders.items() if incarnation in holders]:
            self._holders[block].discard(incarnation)
            if not self._holders[block]:
                del self._holders[block]

    def cached_tokens(self, blocks: Sequence[bytes]) -> dict[str, int]:
        """By incarnation, how many tokens from the start it is expected to hold; pods without any are left out."""
        cached: dict[str, int] = {}
        alive: set[str] | None = None
        for count, block in enumerate(blocks):
            holders = self._holders.get(block)
            still = set() if holders is None else set(holders) if alive is None else alive & holders
            for incarnation in (alive or set()) - still:
                cached[incarnation] = count * BLOCK_TOKENS
            alive = still
            if not still:
                return cached
        for incarnation in alive or ():
            cached[incarnation] = len(blocks) * BLOCK_TOKENS
        return cached
