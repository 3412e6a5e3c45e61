"""The next tokens of a batch, in torch: engine/sampling_law.py for whole batches of real vocabularies.

Sums run along a row in a fixed order, so that a row draws the same beside any other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy
import torch
from torch import Tensor

from tandem_runtime.contracts.sampling import Alternatives, Sampling, uniform
from tandem_runtime.engine.executor import SequenceStep

CACHED_NUMBERS: Final = 1 << 18
"""Rows of so many numbers are drawn from together: their passes stay in the cache of a CPU (2 MiB)."""


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


def places_of(steps: Sequence[SequenceStep]) -> list[Place]:
    """Of all rows that are sampled, in order: each draft counts as a token for those behind it."""
    places: list[Place] = []
    for step in steps:
        if step.sampling is None:
            continue
        for row in range(step.rows):
            tokens = step.tokens[: len(step.tokens) - step.drafts + row] if step.drafts else step.tokens
            places.append(Place(step.sampling, step.output_index + row, tokens))
    return places


def sample(logits: Tensor, places: Sequence[Place], ends: Sequence[int] = ()) -> Drawn:
    """float32 [rows, vocab], one place for each row. `ends`: ids of the end of text. Leaves `logits` as they are."""
    changed = change(logits, places, ends)
    random = [row for row, place in enumerate(places) if place.sampling.temperature > 0]
    chosen = changed.argmax(dim=-1) if len(random) < len(places) else torch.zeros_like(changed[:, 0], dtype=torch.int64)
    size = max(1, CACHED_NUMBERS // logits.shape[-1])
    for first in range(0, len(random), size):
        rows = random[first : first + size]
        chosen[rows] = draw(changed[rows], [places[row] for row in rows])
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
    weights = logits.double().sub_(logits.amax(dim=-1, keepdim=True)).div_(temperature).exp_()
    filtered = [row for row, place in enumerate(places) if _filters(place.sampling, logits.shape[-1])]
    if filtered:
        samplings = [places[row].sampling for row in filtered]
        weights[filtered], floor = keep(weights[filtered], logits[filtered], samplings)
        least[filtered] = torch.maximum(least[filtered], floor)
    if bool((least > 0).any()):
        weights *= weights >= least
    cumulative = weights.cumsum(dim=-1)
    place_of = torch.searchsorted(cumulative, number * cumulative[:, -1:], right=True)[:, 0]
    return place_of.clamp(max=logits.shape[-1] - 1)


def _filters(sampling: Sampling, vocabulary: int) -> bool:
    return 0 < sampling.top_k < vocabulary or sampling.top_p < 1.0


def keep(weights: Tensor, logits: Tensor, samplings: Sequence[Sampling]) -> tuple[Tensor, Tensor]:
    """Weights [rows, vocab] (1 for the likeliest) after top-k, and the least weight [rows, 1] that top-p keeps."""
    vocabulary = logits.shape[-1]
    if any(0 < s.top_k < vocabulary for s in samplings):
        last = [s.top_k - 1 if 0 < s.top_k < vocabulary else vocabulary - 1 for s in samplings]
        least = descending(logits).gather(1, torch.tensor(last, device=logits.device)[:, None])
        weights = weights * (logits >= least)
    top_p = torch.tensor([s.top_p for s in samplings], dtype=torch.float64, device=logits.device)[:, None]
    if bool((top_p >= 1.0).all()):
        return weights, torch.zeros_like(top_p)
    ordered = descending(weights)
    reached = ordered.cumsum(dim=-1) >= top_p * weights.cumsum(dim=-1)[:, -1:]
    floor = ordered.gather(1, reached.int().argmax(dim=-1, keepdim=True))
    return weights, torch.where(reached[:, -1:] & (top_p < 1.0), floor, 0.0)


def descending(rows: Tensor) -> Tensor:
    """[rows, n], each sorted."""
    if rows.device.type != "cpu":
        return rows.sort(dim=-1, descending=True).values
    # numpy sorts with the vector units, ten times as fast as torch on one core, and many equal numbers fastest.
    return torch.from_numpy(numpy.sort(rows.numpy(), axis=-1)[:, ::-1].copy())


def likeliest(row: Tensor, count: int, log_total: float) -> Alternatives:
    """The `count` likeliest of one row, ties by id."""
    if count == 0:
        return []
    least = descending(row[None])[0, min(count, row.numel()) - 1]
    candidates = (row >= least).nonzero()[:, 0]
    found = sorted(
        zip(row[candidates].tolist(), candidates.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1])
    )
    return [(token, logit - log_total) for logit, token in found[:count]]
