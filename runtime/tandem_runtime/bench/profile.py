"""`tandem-runtime profile`: where the time of a step goes, by kind of step and part of the model."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tandem_runtime.engine.torch_executor import TorchExecutor

BATCH, PROMPT_TOKENS, LONG_TOKENS, CONTEXT_TOKENS = 32, 128, 1024, 2048
DECODE_STEPS = 8


@dataclass(frozen=True, slots=True)
class StepProfile:
    """Median seconds of one kind of step, and of its parts; what is left is Python, sampling and copies."""

    name: str
    tokens: int
    seconds: float
    parts: dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="checkpoint and tokenizer")
    parser.add_argument("--int8", action="store_true", help="weights and activations rounded to int8")
    parser.add_argument("--dtype", default="bfloat16", help="of weights and KV (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each step (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prints one table."""
    from tandem_runtime.engine.torch_executor import TorchExecutor

    executor = TorchExecutor(
        args.model, dtype=args.dtype, int8=args.int8, max_context_tokens=_context(args.model), device="cpu"
    )
    began = time.perf_counter()
    executor.load()
    loaded = time.perf_counter() - began
    profiles = profile(executor, args.rounds)
    kernels = "plain torch" if executor.native is None else f"{executor.native.instruction_set} kernels"
    Console().print(table_of(profiles, f"{args.model.name}: loaded in {loaded:.1f} s, {kernels}"))
    return 0


def _context(model: Path) -> int:
    from tandem_runtime.models.config import read_config

    return min(CONTEXT_TOKENS, read_config(model).max_context_tokens)


def profile(executor: TorchExecutor, rounds: int) -> list[StepProfile]:
    """A long prompt, one sequence's decode step, and a batch's."""
    long = min(LONG_TOKENS, executor.capacity.max_context_tokens - DECODE_STEPS)
    prompt = min(PROMPT_TOKENS, long)
    return [
        _measure(executor, f"prompt of {long}", 1, 0, long, rounds),
        _measure(executor, "decode of 1", 1, prompt, 1, rounds * DECODE_STEPS),
        _measure(executor, f"decode of {BATCH}", BATCH, prompt, 1, rounds * 2),
    ]


def _measure(executor: TorchExecutor, name: str, sequences: int, position: int, tokens: int, times: int) -> StepProfile:
    from tandem_runtime.contracts.sampling import Sampling
    from tandem_runtime.engine.executor import Plan, SequenceStep

    capacity, random = executor.capacity, Random(1)
    each = -(-(position + tokens) // capacity.page_tokens)

    def plan(start: int, count: int) -> Plan:
        steps = []
        for index in range(sequences):
            ids = [random.randrange(capacity.vocab_size) for _ in range(count)]
            pages = list(range(index * each, (index + 1) * each))
            steps.append(SequenceStep(ids, start, pages, Sampling(max_tokens=1), 0, 0))
        return Plan(steps)

    if position:
        executor.execute(plan(0, position))
    step = plan(position, tokens)
    executor.execute(step)
    seconds, parts = _times(executor, lambda: executor.execute(step), times)
    return StepProfile(name, sequences * tokens, seconds, parts)


def _times(executor: TorchExecutor, run_step: Callable[[], object], times: int) -> tuple[float, dict[str, float]]:
    taken: list[float] = []
    by_part: dict[str, list[float]] = {}
    for _ in range(times):
        if executor.native is not None:
            executor.native.part_seconds(reset=True)
        began = time.perf_counter()
        run_step()
        taken.append(time.perf_counter() - began)
        for name, value in executor.native.part_seconds().items() if executor.native is not None else ():
            by_part.setdefault(name, []).append(value)
    return statistics.median(taken), {name: statistics.median(values) for name, values in by_part.items()}


def table_of(profiles: list[StepProfile], title: str) -> Table:
    """Milliseconds and shares."""
    table = Table(title=title)
    table.add_column("part")
    for step in profiles:
        table.add_column(step.name, justify="right")
    parts = list(profiles[0].parts)
    for part in parts:
        table.add_row(part, *(_cell(step.parts[part], step.seconds) for step in profiles))
    rest = [max(0.0, step.seconds - sum(step.parts.values())) for step in profiles]
    table.add_row("outside", *(_cell(value, step.seconds) for value, step in zip(rest, profiles, strict=True)))
    table.add_section()
    table.add_row("step", *(f"{1000 * step.seconds:.2f} ms" for step in profiles))
    table.add_row("tokens/s", *(f"{step.tokens / step.seconds:.1f}" for step in profiles))
    return table


def _cell(seconds: float, whole: float) -> str:
    return f"{1000 * seconds:8.2f} ms {seconds / whole:4.0%}"
