"""How the next token is chosen. The random stream is a function of (seed, output index), so any pod can go on."""

from __future__ import annotations

import math
from typing import Final

import msgspec

MASK: Final = (1 << 64) - 1
GOLDEN: Final = 0x9E3779B97F4A7C15
"""SplitMix64's increment: its states are far apart."""
MOST_LOGPROBS: Final = 20
"""Alternatives for each token, as OpenAI has it."""
MOST_BIAS: Final = 100.0
MOST_STOP_TOKENS: Final = 128

Alternatives = list[tuple[int, float]]
"""The likeliest tokens at one place, most likely first: (id, log probability)."""


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """`temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 switch their filter off. `max_tokens`, `min_tokens`
    count output tokens, those of before a resume included."""

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    ignore_eos: bool = False
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    """Both count output tokens only, as OpenAI's do."""
    repetition_penalty: float = 1.0
    """Counts tokens of prompt and output."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    """End the answer as the model's own end does; ignore_eos does not concern them."""
    min_tokens: int = 0
    """Before that many, neither an end of text nor one of stop_token_ids is drawn."""
    logprobs: int | None = None
    """None: log probabilities are not wanted; n: that of the token, and of the n likeliest."""

    @property
    def counts_tokens(self) -> bool:
        """Whether the choice depends on the tokens before: those have to be handed to the sampler."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    @property
    def changes_logits(self) -> bool:
        """Whether anything comes between the model's logits and temperature."""
        return self.counts_tokens or bool(self.logit_bias) or self.min_tokens > 0


def uniform(seed: int, output_index: int) -> float:
    """In [0, 1), from 53 bits of SplitMix64 over a state that both numbers choose: exact integers, so it is the same
    on every platform."""
    state = _mix((seed & MASK) ^ _mix((output_index + 1) * GOLDEN & MASK))
    return (_mix(state) >> 11) * 2.0**-53


def choice_seed(seed: int, choice: int) -> int:
    """Seed of choice number `choice` of a request with n > 1; the first keeps the request's own. 63 bits."""
    return seed if choice == 0 else _mix((seed & MASK) ^ _mix(~choice & MASK)) >> 1


def _mix(state: int) -> int:
    state = (state + GOLDEN) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def sampling_complaint(sampling: Sampling, vocabulary: int) -> str:
    """Why nothing can be sampled like that from `vocabulary` tokens; empty when it is in order."""
    known = sampling
    numbers: dict[str, tuple[float, float, float]] = {
        "max_tokens": (known.max_tokens, 1, math.inf),
        "min_tokens": (known.min_tokens, 0, known.max_tokens),
        "top_k": (known.top_k, 0, math.inf),
        "min_p": (known.min_p, 0, 1),
        "presence_penalty": (known.presence_penalty, -2, 2),
        "frequency_penalty": (known.frequency_penalty, -2, 2),
        "logprobs": (known.logprobs or 0, 0, MOST_LOGPROBS),
        "stop_token_ids": (len(known.stop_token_ids), 0, MOST_STOP_TOKENS),
    }
    for name, (value, least, most) in numbers.items():
        if not least <= value <= most:  # also what is no number at all
            what = f"{name} has {value} entries" if name == "stop_token_ids" else f"{name} is {value}"
            return f"{what}; it must be at least {least}" + (f" and at most {most}" if most < math.inf else "")
    if not (math.isfinite(known.temperature) and known.temperature >= 0):
        return f"temperature is {known.temperature}; it must be a number of at least 0"
    if not 0 < known.top_p <= 1:
        return f"top_p is {known.top_p}; it must be above 0 and at most 1"
    if not (known.repetition_penalty > 0 and math.isfinite(known.repetition_penalty)):
        return f"repetition_penalty is {known.repetition_penalty}; it must be above 0"
    return _ids_complaint(known, vocabulary)


def _ids_complaint(sampling: Sampling, vocabulary: int) -> str:
    for token, bias in sampling.logit_bias:
        if not 0 <= token < vocabulary:
            return f"logit_bias names token id {token}; the vocabulary has {vocabulary} tokens"
        if not -MOST_BIAS <= bias <= MOST_BIAS:
            return f"logit_bias of token id {token} is {bias}; it must be from -{MOST_BIAS:g} to {MOST_BIAS:g}"
    for token in sampling.stop_token_ids:
        if not 0 <= token < vocabulary:
            return f"stop_token_ids names token id {token}; the vocabulary has {vocabulary} tokens"
    return ""
