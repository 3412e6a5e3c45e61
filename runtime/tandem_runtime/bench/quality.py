"""`tandem-runtime quality`: what int8 weights and KV cost: perplexity and agreement beside bfloat16 and float32, on
text of the model's own (drawn at temperature 1 by the float32 reference, so that any model has some)."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tandem_runtime.engine.torch_executor import TorchExecutor

CONTEXT_TOKENS = 512
INT8: dict[str, Any] = {"dtype": "bfloat16", "int8": True}
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("float32, int8 KV", {"dtype": "float32", "kv_dtype": "int8"}),
    ("bfloat16", {"dtype": "bfloat16"}),
    ("bfloat16, int8 KV", {"dtype": "bfloat16", "kv_dtype": "int8"}),
    ("int8 dynamic", INT8),
    ("int8 dynamic, int8 KV", INT8 | {"kv_dtype": "int8"}),
)
"""Beside the float32 reference; the first says what int8 KV costs alone."""
MARGIN_TOLERANCE_NATS = 0.15
"""A fast mode may take another token than the reference only where the reference's likeliest is ahead of its next by
less than this: twice what the sample model showed at most (0.072)."""


@dataclass(frozen=True, slots=True)
class Quality:
    """`agreement`: share of places with the reference's likeliest token; `sure`: only where the reference's was at
    least twice as likely as any other. `widest_margin`: of the places where they differ the most that the reference's
    likeliest token is ahead of its next, in nats; 0 where none differs."""

    name: str
    perplexity: float
    agreement: float
    agreement_where_sure: float
    places: int
    sure_places: int
    widest_margin: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="checkpoint and tokenizer")
    parser.add_argument("--texts", type=int, default=8, metavar="N", help="drawn texts (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="of each (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prints one table."""
    rows = measure(args.model, args.texts, args.tokens)
    Console().print(table_of(rows, f"{args.model.name}: {args.texts} texts of {args.tokens} tokens"))
    return 0


def measure(model: Path, texts: int, tokens: int) -> list[Quality]:
    """The reference, then each of KINDS, judged on `texts` texts of `tokens` tokens."""
    reference = _load(model, dtype="float32")
    drawn = [_draw(reference, seed, tokens) for seed in range(texts)]
    base = [_judge(reference, text) for text in drawn]
    rows = [_compare("float32, torch", base, base)]
    for name, options in KINDS:
        executor = _load(model, **options)
        rows.append(_compare(name, [_judge(executor, text) for text in drawn], base))
        executor.close()
    return rows


def table_of(rows: list[Quality], title: str) -> Table:
    """For people."""
    table = Table(title=title)
    for heading in ("", "perplexity", "same likeliest token", "where the reference is sure", "widest margin"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=not heading)
    for row in rows:
        sure = f"{row.agreement_where_sure:.1%} of {row.sure_places}"
        same = f"{row.agreement:.1%} of {row.places}"
        table.add_row(row.name, f"{row.perplexity:.3f}", same, sure, f"{row.widest_margin:.3f}")
    return table


def _load(model: Path, **options: Any) -> TorchExecutor:
    from tandem_runtime.engine.torch_executor import TorchExecutor
    from tandem_runtime.models.config import read_config

    context = min(CONTEXT_TOKENS, read_config(model).max_context_tokens)
    executor = TorchExecutor(model, device="cpu", max_context_tokens=context, **options)
    executor.load()
    return executor


def _step(executor: TorchExecutor, tokens: list[int], position: int, **sampling: Any) -> Any:
    from tandem_runtime.contracts.sampling import Sampling
    from tandem_runtime.engine.executor import Plan, SequenceStep

    pages = list(range(-(-(position + len(tokens)) // executor.capacity.page_tokens)))
    step = SequenceStep(tokens, position, pages, Sampling(max_tokens=1, **sampling), position, 0)
    return executor.execute(Plan([step]))


def _draw(executor: TorchExecutor, seed: int, count: int) -> list[int]:
    text = [seed % executor.capacity.vocab_size]
    while len(text) < count:
        text.append(_step(executor, text[-1:], len(text) - 1, temperature=1.0, seed=seed).ids[0])
    return text


def _judge(executor: TorchExecutor, text: list[int]) -> list[tuple[list[tuple[int, float]], float]]:
    """At each place but the last: the two likeliest tokens, and the log probability of the one that stands there."""
    places = []
    for position, (token, following) in enumerate(pairwise(text)):
        # a bias that decides makes the token "drawn"; log probabilities are the model's own
        result = _step(executor, [token], position, logprobs=2, logit_bias=((following, 100.0),))
        places.append((result.alternatives[0], result.logprobs[0]))
    return places


def _compare(name: str, mine: list[Any], base: list[Any]) -> Quality:
    places = [pair for ours, theirs in zip(mine, base, strict=True) for pair in zip(ours, theirs, strict=True)]
    loss = -sum(logprob for (_, logprob), _ in places) / len(places)
    same = [ours[0][0] == theirs[0][0] for (ours, _), (theirs, _) in places]
    margins = [theirs[0][1] - theirs[1][1] for _, (theirs, _) in places]
    sure = [margin > math.log(2) for margin in margins]
    widest = max((margin for margin, is_same in zip(margins, same, strict=True) if not is_same), default=0.0)
    agreed = sum(1 for is_same, is_sure in zip(same, sure, strict=True) if is_same and is_sure)
    shares = sum(same) / len(same), agreed / max(1, sum(sure))
    return Quality(name, math.exp(loss), *shares, len(same), sum(sure), widest)
