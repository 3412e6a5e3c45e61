"""The next token from logits. Randomness is a hash of (seed, output index), so any pod draws the same number."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from tandem_runtime.contracts.sampling import Sampling

MASK: Final = (1 << 64) - 1


def uniform(seed: int, output_index: int) -> float:
    """In [0, 1), from 53 bits of SplitMix64 over a state that both numbers choose."""
    state = _mix((seed & MASK) ^ _mix((output_index + 1) * 0x9E3779B97F4A7C15 & MASK))
    return (_mix(state) >> 11) * 2.0**-53


def _mix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def sample(logits: Tensor, samplings: list[Sampling], output_indices: list[int]) -> tuple[list[int], list[float]]:
    """float32 [rows, vocab] -> token ids and their log probabilities under the unmodified distribution."""
    chosen = logits.argmax(dim=-1)
    for row, (sampling, index) in enumerate(zip(samplings, output_indices, strict=True)):
        if sampling.temperature > 0:
            chosen[row] = draw(logits[row], sampling, uniform(sampling.seed, index))
    picked = logits.gather(1, chosen[:, None])[:, 0]
    logprobs = picked - torch.logsumexp(logits, dim=-1)
    return chosen.tolist(), logprobs.tolist()


def draw(logits: Tensor, sampling: Sampling, number: float) -> int:
    """Token at quantile `number` of the distribution after temperature, then top-k, then top-p; most likely first."""
    count = min(sampling.top_k, logits.numel()) if sampling.top_k > 0 else logits.numel()
    ordered, ids = torch.sort(logits, descending=True, stable=True)
    scaled = (ordered[:count].double() - ordered[0]) / sampling.temperature  # at most 0: never inf - inf
    cumulative = torch.softmax(scaled, dim=-1).cumsum(dim=-1)
    if sampling.top_p < 1.0:
        # The token that crosses top_p is kept, so at least one always is.
        kept = int((cumulative < sampling.top_p).sum()) + 1
        cumulative = cumulative[: min(kept, count)]
    place = int(torch.searchsorted(cumulative, number * cumulative[-1], right=True))
    return int(ids[min(place, cumulative.numel() - 1)])
