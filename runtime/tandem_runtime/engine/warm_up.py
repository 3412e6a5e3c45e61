"""A few steps before the first request: kernels are made ready, and routers hear from the start what steps take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.estimate import StepEstimate
from tandem_runtime.engine.executor import Capacity, Executor, Plan, SequenceStep
from tandem_runtime.engine.request import page_count

ROUNDS: Final = ((1, 31), (2, 96), (1, 64), (4, 160), (8, 256), (2, 128))
"""Sequences that decode, tokens of a chunk; short ones first: a slow device does not come to the long ones."""
MOST_SECONDS: Final = 0.5
"""A start must not take noticeably longer for it; what is not known by then, traffic teaches."""
GREEDY: Final = Sampling(max_tokens=2)


def warm_up(
    executor: Executor, capacity: Capacity, estimate: StepEstimate, clock: Callable[[], float] = time.monotonic
) -> None:
    """Before any page is given out. The first round is slower than all others and does not count."""
    deadline = clock() + MOST_SECONDS
    short = min(capacity.page_tokens, capacity.max_context_tokens) - 1
    room = min(capacity.max_context_tokens, capacity.pages * capacity.page_tokens)
    for number, (most_sequences, most_tokens) in enumerate((ROUNDS[0], *ROUNDS)):
        count, tokens = min(most_sequences, capacity.max_sequences, capacity.pages), min(most_tokens, room)
        if short < 1 or clock() >= deadline:
            return
        chunk = executor.execute(Plan([_step(capacity, 0, 0, tokens)]))
        prompts = executor.execute(Plan([_step(capacity, page, 0, short) for page in range(count)]))
        decoded = executor.execute(Plan([_step(capacity, page, short, 1) for page in range(count)]))
        if number:
            estimate.learn(0, 0, tokens, tokens * tokens / 2, chunk.seconds)
            estimate.learn(0, 0, count * short, count * short * short / 2, prompts.seconds)
            estimate.learn(count, count * short, 0, 0.0, decoded.seconds)


def _step(capacity: Capacity, first_page: int, position: int, tokens: int) -> SequenceStep:
    pages = list(range(first_page, first_page + page_count(position + tokens, capacity.page_tokens)))
    return SequenceStep([0] * tokens, position, pages, GREEDY, 1 if position else 0, 0)
