"""How many requests a replica serves within its objective, and how many replicas a load takes. Formulas, no choices."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

from tandem_runtime.contracts.coefficients import Coefficients

OBJECTIVE_SHARE: Final = 0.8
"""Predictions must stay within this share of the objective: the model errs by 5 to 25 %, and bursts come on top."""
PREFILL_LOAD_LIMIT: Final = 0.90
"""Share of time that a prefill replica may compute: what rate matching of silicon measurements found."""
DECODE_LOAD_LIMIT: Final = 0.92
"""Share of decode's rate that is reached: the same source."""
POOLED_SERVERS: Final = 1000
"""So many behind one queue wait for nothing but the load limit; counting them one by one would take long."""
TAIL_QUANTILES: Final = ((0.999, 3.09), (0.99, 2.33), (0.95, 1.645), (0.9, 1.282), (0.0, 0.842))
"""Standard deviations of the number of answers in flight to be ready for, by attainment."""


@lru_cache(maxsize=1 << 16)
def prefill_utilization(slack: float, miss: float) -> float:
    """Largest share of time that one replica may compute so that at most `miss` of the prompts wait longer than
    `slack` services: rho exp(-(1 - rho) slack) <= miss (Poisson arrivals, prompts of varied lengths)."""
    if slack < 0:
        return 0.0
    low, high = 0.0, PREFILL_LOAD_LIMIT
    if high * math.exp(-(1 - high) * slack) <= miss:
        return high
    for _ in range(30):
        middle = (low + high) / 2
        if middle * math.exp(-(1 - middle) * slack) <= miss:
            low = middle
        else:
            high = middle
    return low


@lru_cache(maxsize=1 << 16)
def prefill_servers(busy: float, slack: float, miss: float) -> int:
    """Servers behind one queue for `busy` servers' worth of work: Erlang's C times exp(-(c - busy) slack) <= miss."""
    if busy > POOLED_SERVERS:
        return math.ceil(busy / PREFILL_LOAD_LIMIT)
    blocked, servers = 1.0, 0
    while True:
        servers += 1
        blocked = busy * blocked / (servers + busy * blocked)  # Erlang B, by its recursion
        if servers * PREFILL_LOAD_LIMIT < busy:
            continue
        waits = servers * blocked / (servers - busy * (1 - blocked))
        if waits * math.exp(-(servers - busy) * slack) <= miss:
            return servers


def decode_sequences(c: Coefficients, tpot_s: float, context_tokens: float) -> int:
    """Sequences of `context_tokens` that one step may hold within `tpot_s`; 0: not even one."""
    per_sequence = c.decode.phi1_s + c.decode.phi2_s * context_tokens
    room = tpot_s - c.decode.phi0_s
    if room < per_sequence:
        return 0
    return min(c.max_sequences, int(room / per_sequence * (1 + 1e-9))) if per_sequence > 0 else c.max_sequences


def decode_replicas(requests_per_s: float, answer_s: float, sequences: int, attainment: float) -> int:
    """For answers in flight (a Poisson number of mean rate x duration) and their fluctuation."""
    mean = requests_per_s * answer_s
    deviations = next(z for least, z in TAIL_QUANTILES if attainment >= least)
    return max(1, math.ceil((mean + deviations * math.sqrt(mean)) / sequences))
