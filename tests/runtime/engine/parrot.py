"""An executor in plain Python that repeats itself: logits are a law of the last two tokens that the pages hold.

A page that is wrong, late or missing stops it, and rows draw by the law of sampling itself.
"""

from __future__ import annotations

import pickle
import random
from functools import cache

from tandem_runtime.contracts.kv_protocol import Layout
from tandem_runtime.contracts.sampling import Alternatives
from tandem_runtime.engine.executor import GONE, Capacity, Plan, SequenceStep, StepResult, first_page
from tandem_runtime.engine.sampling_law import choose, log_probabilities, to_float32

VOCABULARY = 16
END = 1
CONTEXT = 200


@cache
def logits_after(before: int, last: int) -> list[float]:
    """float32; the same two tokens are always followed alike."""
    numbers = random.Random(before * VOCABULARY + last)
    return [to_float32(numbers.gauss(0.0, 2.5)) for _ in range(VOCABULARY)]


class Parrot:
    """`pages` of `page_tokens` tokens; `forwards` counts what it was asked for."""

    def __init__(self, pages: int = 64, page_tokens: int = 32, window_tokens: int = 0) -> None:
        self.capacity = Capacity(
            pages=pages,
            page_tokens=page_tokens,
            max_sequences=16,
            max_context_tokens=CONTEXT,
            vocab_size=VOCABULARY,
            eos_token_ids=frozenset({END}),
            layout=Layout(1, 1, 1, page_tokens, "parrot", 64),
            compat_hash="parrot",
            window_tokens=window_tokens,
        )
        self.forwards = 0
        self._slots: dict[tuple[int, int], tuple[int, int]] = {}

    def load(self) -> Capacity:
        return self.capacity

    def execute(self, plan: Plan) -> StepResult:
        self.forwards += 1
        ids: list[int | None] = []
        logprobs: list[float | None] = []
        alternatives: list[Alternatives] = []
        for step in plan.sequences:
            self._store(step)
            for row in range(step.rows):
                token, logprob, others = self._draw(step, row)
                ids.append(token)
                logprobs.append(logprob)
                alternatives.append(others)
        return StepResult(ids, logprobs, 0.001, alternatives)

    def _store(self, step: SequenceStep) -> None:
        size = self.capacity.page_tokens
        first = first_page(step.position, self.capacity.window_tokens, size)
        assert GONE not in step.pages[first:]
        for position in range(first * size, step.position):
            assert self._slots[step.pages[position // size], position % size][0] == position, "not this sequence's page"
        for position, token in enumerate(step.token_ids, step.position):
            self._slots[step.pages[position // size], position % size] = (position, token)

    def _draw(self, step: SequenceStep, row: int) -> tuple[int | None, float | None, Alternatives]:
        sampling, size = step.sampling, self.capacity.page_tokens
        if sampling is None:
            return None, None, []
        last = step.position + len(step.token_ids) - step.drafts + row - 1
        seen = [self._slots[step.pages[at // size], at % size] for at in (max(0, last - 1), last)]
        assert [position for position, _ in seen] == [max(0, last - 1), last]
        logits = logits_after(seen[0][1], seen[1][1])
        tokens = step.tokens[: len(step.tokens) - step.drafts + row]
        token = choose(logits, sampling, step.output_index + row, tokens, self.capacity.eos_token_ids)
        if sampling.logprobs is None:
            return token, None, []
        return token, *log_probabilities(logits, token, sampling.logprobs)

    def read_pages(self, pages: list[int], layer_first: int, layer_end: int) -> list[memoryview]:
        slots = range(self.capacity.page_tokens)
        return [memoryview(pickle.dumps([self._slots.get((page, slot)) for slot in slots])) for page in pages]

    def write_pages(self, pages: list[int], layer_first: int, layer_end: int, payloads: list[memoryview]) -> None:
        for page, payload in zip(pages, payloads, strict=True):
            held = enumerate(pickle.loads(payload))
            self._slots.update({(page, slot): value for slot, value in held if value is not None})

    def close(self) -> None:
        self._slots.clear()
