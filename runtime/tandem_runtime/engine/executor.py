"""The seam below the scheduler: an executor runs one step of a batch over paged KV.

Two implementations from the first day: `torch` (real weights) and `emulated` (no weights, real pages, real time).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tandem_runtime.contracts.kv_protocol import Layout
from tandem_runtime.contracts.sampling import Alternatives, Sampling
from tandem_runtime.models.errors import ModelError as ModelError

GONE: Final = -1
"""Stands in a sequence's block table for a page that fell out of the window: nobody reads it, or names it."""


def first_page(position: int, window_tokens: int, page_tokens: int) -> int:
    """Number of the first page that tokens from `position` on still see. The same for all positions of a page, so
    that what is computed in whole blocks does not depend on where in the block one begins."""
    if window_tokens == 0:
        return 0
    return max(0, position - position % page_tokens + 1 - window_tokens) // page_tokens


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a loaded executor offers. `pages` pages of `page_tokens` tokens; at most `max_sequences` in one step."""

    pages: int
    page_tokens: int
    max_sequences: int
    max_context_tokens: int
    vocab_size: int
    eos_token_ids: frozenset[int]
    layout: Layout
    compat_hash: str
    """Hash of weights, dtype, page layout, RoPE and KV quantisation: pods that differ must not exchange pages."""
    window_tokens: int = 0
    """Tokens that no layer looks back beyond, the last one included: pages before are never read. 0: all are."""
    dtype: str = ""
    """What is computed in; empty: nothing is. The KV's stands in `layout`."""
    quantization: str = "none"
    """Of the weights, as --quantization says it."""


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """New tokens of one sequence in this step: one while decoding (and drafts), a chunk while prefilling.

    `position` is the index of the first of `token_ids` in the sequence; `pages` is the block table that covers
    positions 0 to position + len(token_ids) - 1, where those before first_page(position) may be GONE. A token is
    sampled after the last of `token_ids` unless `sampling` is None. The last `drafts` of them are guesses: a token is
    sampled after each, as if it and all before it were right, and one after the token that precedes them.
    `prompt_digest` (contracts.hashing) and `output_index`, that of the first of them, make sampling independent of
    pod, batch and restart.
    """

    token_ids: list[int]
    position: int
    pages: list[int]
    sampling: Sampling | None
    output_index: int
    prompt_digest: int
    tokens: Sequence[int] = ()
    """Prompt and output up to the end of this step: where `sampling` counts tokens (penalties), else empty."""
    drafts: int = 0

    @property
    def rows(self) -> int:
        """Of the result."""
        return 1 + self.drafts


@dataclass(frozen=True, slots=True)
class Plan:
    """One step of the batch."""

    sequences: list[SequenceStep] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StepResult:
    """Row by row; a sequence has one row and one more for each draft. `ids[i]` is the token sampled there, None where
    none was asked for; `logprobs` likewise, and None where sampling.logprobs is. `alternatives[i]`: the likeliest
    tokens there; the list is empty where nobody asks."""

    ids: list[int | None]
    logprobs: list[float | None]
    seconds: float
    alternatives: list[Alternatives] = field(default_factory=list)


class SequenceError(ModelError):
    """One sequence of the plan cannot be computed; the others can. `index` is its place in the plan."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


class Executor(Protocol):
    """Used by one thread at a time."""

    def load(self) -> Capacity:
        """Loads weights and reserves the pages. Raises ModelError."""

    def execute(self, plan: Plan) -> StepResult:
        """Runs one step: computes KV of all new tokens into their pages and samples."""

    def read_pages(self, pages: list[int], layer_first: int, layer_end: int) -> list[memoryview]:
        """Copies of layers [layer_first, layer_end) of each page, laid out as contracts.kv_protocol.Layout says."""

    def write_pages(self, pages: list[int], layer_first: int, layer_end: int, payloads: list[memoryview]) -> None:
        """The inverse of read_pages. Raises ValueError when a payload's size is wrong."""

    def close(self) -> None:
        """Frees everything; the executor is not used again."""
