"""The next tokens of a batch, in torch: engine/sampling_law.py for whole batches of real vocabularies.

Sums run along a row in a fixed order, so that a row draws the same beside any other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from tandem_runtime.contracts.sampling import Alternatives, Sampling, uniform

CANDIDATES: Final = 1024
"""Of most distributions, so many of the likeliest hold top_p; where they do not, the whole row is sorted."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a token is to be drawn. `tokens`: prompt and the output so far, needed where sampling.counts_tokens."""

    sampling: Sampling
    output_index: int
    tokens: Sequence[int] = ()


@dataclass(slots=True)
class Drawn:
    """By row. Log probabilities are of the model's own distribution, and None where they are not wanted."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)


def sample(logits: Tensor, places: Sequence[Place], ends: Sequence[int] = ()) -> Drawn:
    """float32 [rows, vocab], one place for each row. `ends`: ids of the end of text. Leaves `logits` as they are."""
    changed = change(logits, places, ends)
    chosen = changed.argmax(dim=-1)
    random = [row for row, place in enumerate(places) if place.sampling.temperature > 0]
    if random:
        rows = changed if len(random) == len(places) else changed[random]
        chosen[random] = draw(rows, [places[row] for row in random])
    drawn = Drawn(chosen.tolist(), [None] * len(places), [[] for _ in places])
    for row, place in enumerate(places):
        if place.sampling.logprobs is not None:
            log_total = torch.logsumexp(logits[row], dim=-1)
            drawn.logprobs[row] = float(logits[row, drawn.ids[row]] - log_total)
            drawn.alternatives[row] = likeliest(logits[row], place.sampling.logprobs, float(log_total))
    return drawn


def change(logits: Tensor, places: Sequence[Place], ends: Sequence[int]) -> Tensor:
    """Penalties, bias and least length, on a copy where there are any."""
    rows = [row for row, place in enumerate(places) if place.sampling.changes_logits]
    if rows:
        logits = logits.clone()
    for row in rows:
        _change_row(logits[row], places[row], ends)
    return logits


def _change_row(row: Tensor, place: Place, ends: Sequence[int]) -> None:
    sampling = place.sampling
    if sampling.counts_tokens and place.tokens:
        tokens = torch.tensor(place.tokens, device=row.device)
        if sampling.repetition_penalty != 1.0:
            seen = torch.unique(tokens)
            old = row[seen].double()
            factor = sampling.repetition_penalty
            row[seen] = torch.where(old > 0, old / factor, old * factor).to(row.dtype)
        answered, counts = torch.unique(tokens[len(place.tokens) - place.output_index :], return_counts=True)
        penalty = sampling.frequency_penalty * counts.double() + sampling.presence_penalty
        row[answered] = (row[answered].double() - penalty).to(row.dtype)
    if sampling.logit_bias:
        biased = torch.tensor([token for token, _ in sampling.logit_bias], device=row.device)
        bias = torch.tensor([bias for _, bias in sampling.logit_bias], dtype=torch.float64, device=row.device)
        row[biased] = (row[biased].double() + bias).to(row.dtype)
    if place.output_index < sampling.min_tokens:
        barred = [*ends, *sampling.stop_token_ids]
        row[torch.tensor(barred, dtype=torch.int64, device=row.device)] = float("-inf")


def draw(logits: Tensor, places: Sequence[Place]) -> Tensor:
    """float32 [rows, vocab], every temperature above 0 -> int64 [rows]."""
    numbers = [uniform(place.sampling.seed, place.output_index) for place in places]
    number, temperature, least = (
        torch.tensor(column, dtype=torch.float64, device=logits.device)[:, None]
        for column in (numbers, [p.sampling.temperature for p in places], [p.sampling.min_p for p in places])
    )
    weights = ((logits.double() - logits.amax(dim=-1, keepdim=True)) / temperature).exp()
    filtered = [row for row, place in enumerate(places) if _filters(place.sampling, logits.shape[-1])]
    if filtered:
        samplings = [places[row].sampling for row in filtered]
        weights[filtered], floor = keep(weights[filtered], logits[filtered], samplings)
        least[filtered] = torch.maximum(least[filtered], floor)
    weights[weights < least] = 0.0
    cumulative = weights.cumsum(dim=-1)
    place_of = torch.searchsorted(cumulative, number * cumulative[:, -1:], right=True)[:, 0]
    return place_of.clamp(max=logits.shape[-1] - 1)


def _filters(sampling: Sampling, vocabulary: int) -> bool:
    return 0 < sampling.top_k < vocabulary or sampling.top_p < 1.0


def keep(weights: Tensor, logits: Tensor, samplings: Sequence[Sampling]) -> tuple[Tensor, Tensor]:
    """Weights [rows, vocab] (1 for the likeliest) after top-k, and the least weight [rows, 1] that top-p keeps."""
    vocabulary = logits.shape[-1]
    counts = [s.top_k if 0 < s.top_k < vocabulary else vocabulary for s in samplings]
    limited = max((count for count in counts if count < vocabulary), default=0)
    if limited:
        largest = logits.topk(limited, dim=-1).values
        last = torch.tensor([min(count, limited) - 1 for count in counts], device=logits.device)[:, None]
        least = largest.gather(1, last)
        least[[row for row, count in enumerate(counts) if count == vocabulary]] = float("-inf")
        weights = torch.where(logits >= least, weights, 0.0)
    top_p = torch.tensor([s.top_p for s in samplings], dtype=torch.float64, device=logits.device)[:, None]
    wanted = top_p * weights.cumsum(dim=-1)[:, -1:]
    for size in (min(CANDIDATES, vocabulary), vocabulary):
        ordered = weights.topk(size, dim=-1).values
        reached = ordered.cumsum(dim=-1) >= wanted
        if bool((reached[:, -1:] | (top_p >= 1.0)).all()):
            break
    floor = ordered.gather(1, reached.int().argmax(dim=-1, keepdim=True))
    return weights, torch.where(reached[:, -1:] & (top_p < 1.0), floor, 0.0)


def likeliest(row: Tensor, count: int, log_total: float) -> Alternatives:
    """The `count` likeliest of one row, ties by id."""
    if count == 0:
        return []
    least = row.topk(min(count, row.numel())).values[-1]
    candidates = (row >= least).nonzero()[:, 0]
    found = sorted(
        zip(row[candidates].tolist(), candidates.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1])
    )
    return [(token, logit - log_total) for logit, token in found[:count]]
