"""How the next token is chosen. The random stream is a function of (seed, output index), so any pod can go on."""

from __future__ import annotations

import msgspec


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """`temperature` 0 is greedy. `top_k` 0 and `top_p` 1 switch their filter off. `max_tokens` counts output tokens."""

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    ignore_eos: bool = False
