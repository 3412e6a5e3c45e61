"""Processor time of one row of sampling, torch's and the compiled one: `python -m tests.bench.speed.sampling`.

Processor time, so that a busy machine matters less; best of several, interleaved. Prints a table, last line JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, Final

import torch
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.compiled_sampler import UNDECIDED, choose, sample_compiled
from tandem_runtime.engine.sampler import Place, sample
from tandem_runtime.ops.native import load_native

VOCABULARY: Final = 151_936
ROWS: Final = 8
ROUNDS: Final = 9
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "greedy": {},
    "T=1": {"temperature": 1.0},
    "top-p 0.9": {"temperature": 1.0, "top_p": 0.9},
    "top-k 50, top-p 0.9": {"temperature": 1.0, "top_k": 50, "top_p": 0.9},
    "T=1, min-p 0.05": {"temperature": 1.0, "min_p": 0.05},
    "T=1, penalties of 512 tokens": {"temperature": 1.0, "presence_penalty": 0.5},
    "greedy, 5 logprobs": {"logprobs": 5},
}
SPREADS: Final = {"flat": 1.0, "peaked": 6.0}
"""Standard deviation of the logits: random weights, and how far a trained model's lie apart."""


def seconds_of(call: Callable[[], object]) -> float:
    """Processor seconds of one row, of all threads."""
    started = time.process_time()
    call()
    return (time.process_time() - started) / ROWS


def main() -> int:
    """Prints a table; 1 without compiled kernels."""
    native = load_native(1)
    if native is None:
        return 1
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float]] = {}
    print(f"{VOCABULARY} logits, {ROWS} rows, {native.instruction_set}; microseconds of processor time a row")
    print(
        f"{'':40} {'torch best':>10} {'median':>8} {'ours best':>10} {'median':>8} {'ratio':>6} {'left to torch':>14}"
    )
    for spread, sigma in SPREADS.items():
        logits = sigma * torch.randn(ROWS, VOCABULARY, generator=torch.Generator().manual_seed(0))
        for name, options in OPTIONS.items():
            tokens = range(512) if "penalties" in name else ()
            taken: tuple[list[float], list[float]] = ([], [])
            left = 0
            for turn in range(ROUNDS):
                places = [Place(Sampling(9, seed=row, **options), turn, tokens) for row in range(ROWS)]
                taken[0].append(seconds_of(partial(sample, logits, places)))
                taken[1].append(seconds_of(partial(sample_compiled, native, logits, places)))
                left += choose(native, logits, places, ()).ids.count(UNDECIDED)
                if sample(logits, places).ids != sample_compiled(native, logits, places).ids:
                    raise AssertionError(f"{name}: another token than torch's")
            ratio = min(taken[0]) / min(taken[1])
            line = [f"{1e6 * value:.0f}" for times in taken for value in (min(times), median(times))]
            print(
                f"{spread + ', ' + name:40} {line[0]:>10} {line[1]:>8} {line[2]:>10} {line[3]:>8} {ratio:6.1f} "
                f"{left:>3} of {ROUNDS * ROWS}"
            )
            figures[f"{spread}, {name}"] = {"ratio": round(ratio, 2)}
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
