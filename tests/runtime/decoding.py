"""Drives an executor directly, as the engine would, for tests of executors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from tandem_runtime.contracts.hashing import prompt_digest
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.executor import Executor, Plan, SequenceStep

GREEDY = Sampling(max_tokens=64, logprobs=0)

CONVERSATIONS = (
    "Tell me a story about a fox.",
    "hi",
    "What is the capital of France, and why is it not Lyon? Explain in one sentence.",
    "Grüß Gott! 你好 🙂",
    "the golden lantern under that bridge " * 12,
)


def prompts_of(model_dir: Path) -> list[list[int]]:
    """Token ids of the conversations above, in the sample model's chat form."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    texts = [f"<|bos|><|user|>{text}<|eos|><|assistant|>" for text in CONVERSATIONS]
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


class Stream:
    """One sequence on one executor: pages, tokens so far, how many of them are computed."""

    def __init__(
        self,
        executor: Executor,
        tokens: Sequence[int],
        first_page: int = 0,
        sampling: Sampling = GREEDY,
        computed: int = 0,
    ) -> None:
        self.executor = executor
        self.tokens = list(tokens)
        self.prompt_tokens = len(tokens)
        self.first_page = first_page
        self.sampling = sampling
        self.computed = computed
        self.logprobs: list[float] = []

    def pages(self, tokens: int | None = None) -> list[int]:
        """Pages for `tokens` tokens (all by default), in an order that is not ascending."""
        count = -(-(tokens or len(self.tokens)) // 32)
        return [self.first_page + (number ^ 1) for number in range(count)]

    def step(self, size: int = 1) -> SequenceStep:
        """The next `size` tokens; sampled when they are the last."""
        end = min(self.computed + size, len(self.tokens))
        sampling = self.sampling if end == len(self.tokens) else None
        index = len(self.tokens) - self.prompt_tokens
        ids = self.tokens[self.computed : end]
        digest = prompt_digest(self.tokens[: self.prompt_tokens])
        return SequenceStep(ids, self.computed, self.pages(end), sampling, index, digest, self.tokens[:end])

    def take(self, step: SequenceStep, token: int | None, logprob: float | None) -> None:
        """Books the result of `step`."""
        self.computed += len(step.token_ids)
        if token is not None:
            self.tokens.append(token)
            self.logprobs.append(0.0 if logprob is None else logprob)

    def run(self, output_tokens: int, chunks: Sequence[int] = (1 << 20,)) -> list[int]:
        """Output tokens, the prompt computed in chunks of these sizes in turn."""
        sizes = cycle(chunks)
        while len(self.tokens) - self.prompt_tokens < output_tokens:
            step = self.step(next(sizes))
            result = self.executor.execute(Plan([step]))
            self.take(step, result.ids[0], result.logprobs[0])
        return self.tokens[self.prompt_tokens :]


def run_batch(executor: Executor, sequences: list[Stream], output_tokens: int, chunk: int) -> list[list[int]]:
    """All sequences in one plan per step; each starts one step after the one before, so that phases mix."""
    step_number = 0
    while any(len(s.tokens) - s.prompt_tokens < output_tokens for s in sequences):
        step_number += 1
        active = [s for s in sequences[:step_number] if len(s.tokens) - s.prompt_tokens < output_tokens]
        steps = [s.step(chunk) for s in active]
        result = executor.execute(Plan(steps))
        for sequence, step, token, logprob in zip(active, steps, result.ids, result.logprobs, strict=True):
            sequence.take(step, token, logprob)
    return [s.tokens[s.prompt_tokens :] for s in sequences]
