"""The law of sampling in plain Python: what the samplers for real vocabularies must do, token for token. Pure.

Penalties, bias and least length change the logits, each rounded to float32. Then temperature; top-k, top-p and min-p,
each a threshold (what ties with the last one kept is kept too); last a draw by the inverse distribution function over
what is left, in order of the token ids, in double precision.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable, Sequence

from tandem_runtime.contracts.sampling import Alternatives, Sampling, uniform


def choose(
    logits: Sequence[float], sampling: Sampling, output_index: int, tokens: Sequence[int] = (), ends: Iterable[int] = ()
) -> int:
    """The token with that index of an answer. `logits` are float32; `tokens`: prompt and the output_index tokens of
    output so far; `ends`: ids of the end of text."""
    changed = change(logits, sampling, output_index, tokens, ends)
    if sampling.temperature <= 0:
        return changed.index(max(changed))
    top = max(changed)
    weights = keep([math.exp((logit - top) / sampling.temperature) for logit in changed], changed, sampling)
    target = uniform(sampling.seed, output_index) * sum_in_order(weights)[-1]
    return next(token for token, below in enumerate(sum_in_order(weights)) if below > target)


def change(
    logits: Sequence[float], sampling: Sampling, output_index: int, tokens: Sequence[int], ends: Iterable[int]
) -> list[float]:
    """Logits as temperature gets them."""
    changed = list(logits)
    if sampling.repetition_penalty != 1.0:
        for token in set(tokens):
            factor = sampling.repetition_penalty
            changed[token] = to_float32(changed[token] / factor if changed[token] > 0 else changed[token] * factor)
    for token, count in Counter(tokens[len(tokens) - output_index :]).items():
        penalty = sampling.frequency_penalty * count + sampling.presence_penalty
        changed[token] = to_float32(changed[token] - penalty)
    for token, bias in sampling.logit_bias:
        changed[token] = to_float32(changed[token] + bias)
    if output_index < sampling.min_tokens:
        for token in {*ends, *sampling.stop_token_ids}:
            changed[token] = -math.inf
    return changed


def keep(weights: list[float], logits: Sequence[float], sampling: Sampling) -> list[float]:
    """Weights (1 for the likeliest) with those that the filters drop set to 0."""
    if 0 < sampling.top_k < len(logits):
        least = sorted(logits, reverse=True)[sampling.top_k - 1]
        weights = [weight if logit >= least else 0.0 for weight, logit in zip(weights, logits, strict=True)]
    least = sampling.min_p
    if sampling.top_p < 1.0:
        wanted = sampling.top_p * sum_in_order(weights)[-1]
        ordered = sorted(weights, reverse=True)
        reached = (weight for weight, mass in zip(ordered, sum_in_order(ordered), strict=True) if mass >= wanted)
        least = max(least, next(reached, 0.0))
    return [weight if weight >= least else 0.0 for weight in weights]


def sum_in_order(numbers: Iterable[float]) -> list[float]:
    """Running sums, each rounded to double: the order of the sum is part of the law."""
    total = 0.0
    return [total := total + number for number in numbers]


def to_float32(number: float) -> float:
    """The nearest float32."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


def log_probabilities(logits: Sequence[float], token: int, count: int) -> tuple[float, Alternatives]:
    """Of the model's own distribution, before anything changes it: the token's, and the `count` likeliest."""
    top = max(logits)
    log_total = top + math.log(math.fsum(math.exp(logit - top) for logit in logits))
    likeliest = sorted(range(len(logits)), key=lambda other: (-logits[other], other))[:count]
    return logits[token] - log_total, [(other, logits[other] - log_total) for other in likeliest]
