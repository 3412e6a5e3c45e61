"""Prefix blocks that a pod still holds, least recently used out first."""

from __future__ import annotations


class PrefixCache:
    """Names of blocks; equal names mean equal tokens from the prompt's start to the block's end."""

    def __init__(self, capacity_blocks: int) -> None:
        self._capacity = capacity_blocks
        self._blocks: dict[int, None] = {}

    def hits(self, blocks: tuple[int, ...]) -> int:
        """Length of the leading run that is here, in blocks."""
        held = self._blocks
        found = 0
        for block in blocks:
            if block not in held:
                break
            found += 1
        return found

    def store(self, blocks: tuple[int, ...]) -> None:
        """Makes them the most recent; the first block of a prompt last of all, as it is needed most."""
        held = self._blocks
        for block in reversed(blocks[: self._capacity]):
            held.pop(block, None)
            held[block] = None
        while len(held) > self._capacity:
            del held[next(iter(held))]
