"""Our engine beside vLLM for CPUs and transformers on the same weights, interleaved; fractions of what the machine
allows, measured in the same rounds."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.bench.report import Report
from tests.bench.speed.checkpoint import SHAPES
from tests.bench.speed.limits import Limits, measure_limits, shape_of
from tests.bench.speed.peer import PeerUnavailable
from tests.bench.speed.side import Side, SideError

TARGETS = {
    "single_bf16": 1.2,
    "single_int8": 2.0,
    "batch_bf16": 1.2,
    "batch_int8": 1.6,
    "prefill_bf16": 1.2,
    "prefill_int8": 1.6,
    "tiny_single": 2.4,
    "tiny_batch": 1.8,
    "cold_start": 10.0,
    "speculation_repetitive": 2.0,
    "speculation_random": 0.97,
}
"""Ratio to vLLM in bfloat16 that each asks for, or 0.9 of the limit; of speculation to our own plain decode."""
GOOD_FRACTION = 0.9
BATCH, PROMPT, OUTPUT, LONG_PROMPT, WORDS = 32, 128, 64, 1024, 16


def single(side: Side, output: int) -> float:
    """Decode tokens per second of one sequence: the prompt's time is measured and taken off."""
    return output / (side.seconds(1, PROMPT, output + 1) - side.seconds(1, PROMPT, 1))


def decoding(side: Side, output: int, sampling: dict[str, Any]) -> float:
    """As `single`, drawn in another way."""
    longer, shorter = (side.ask(1, PROMPT, count, sampling=sampling)["seconds"] for count in (output + 1, 1))
    return output / (float(longer) - float(shorter))


def repetitive(side: Side, output: int) -> float:
    """Text of sixteen words: random weights soon repeat themselves with so few."""
    return decoding(side, output, {"logit_bias": [(3 + word, 50.0) for word in range(WORDS)]})


def random_text(side: Side, output: int) -> float:
    """Drawn from all tokens nearly evenly: nothing repeats itself."""
    return decoding(side, output, {"temperature": 1.0, "seed": 1})


def batch(side: Side, output: int) -> float:
    """Output tokens per second of 32 requests, prompts included."""
    return BATCH * output / side.seconds(BATCH, PROMPT, output)


def prefill(side: Side, _: int) -> float:
    """Prompt tokens per second of one long prompt."""
    return LONG_PROMPT / side.seconds(1, LONG_PROMPT, 1)


MEASURES: dict[str, Callable[[Side, int], float]] = {"single": single, "batch": batch, "prefill": prefill}
SPECULATION: dict[str, Callable[[Side, int], float]] = {"repetitive": repetitive, "random": random_text}
SPECULATING = ("ours-bf16", "ours-speculate")


class Comparison:
    """Rounds of all sides of one shape: tokens per second, and the limit that held in that round."""

    def __init__(self, shape: str, sides: list[Side]) -> None:
        self.shape = shape
        self._sides = sides
        self.rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.fractions: dict[str, list[float]] = defaultdict(list)
        self.limits: list[Limits] = []

    def run(self, rounds: int, output: int, measures: list[str]) -> None:
        """Each measure on each side in turn, again and again."""
        cost = shape_of(SHAPES[self.shape])
        for number in range(rounds):
            limits = measure_limits()
            self.limits.append(limits)
            allowed = {
                ("single", "ours-bf16"): cost.decode_limit(limits, 2),
                ("single", "ours-int8"): cost.decode_limit(limits, 1),
                ("batch", "ours-bf16"): batch_limit(
                    cost.prefill_limit(limits), cost.decode_limit(limits, 2, BATCH), output
                ),
                ("prefill", "ours-bf16"): cost.prefill_limit(limits),
            }
            for measure in measures:
                for side in self._sides:
                    if not takes_part(side.engine, measure):
                        continue
                    rate = (MEASURES | SPECULATION)[measure](side, output)
                    self.rates[measure][side.engine].append(rate)
                    if (measure, side.engine) in allowed:
                        self.fractions[f"{measure}_{side.engine[5:]}"].append(rate / allowed[measure, side.engine])
                    print(
                        f"{self.shape} round {number + 1}: {measure} {side.engine} {rate:.1f} tokens/s", file=sys.stderr
                    )


def takes_part(engine: str, measure: str) -> bool:
    """Speculation is measured against ourselves."""
    return engine in SPECULATING if measure in SPECULATION else engine != SPECULATING[1]


def batch_limit(prefill_rate: float, decode_rate: float, output: int) -> float:
    """Output tokens per second when prompts and steps each run at their limit."""
    return BATCH * output / (BATCH * PROMPT / prefill_rate + BATCH * output / decode_rate)


def open_sides(stack: ExitStack, shape: str, engines: list[str], timeout_seconds: float, report: Report) -> list[Side]:
    """Those that start; the others are left out with the reason."""
    sides = []
    for engine in engines:
        try:
            side = stack.enter_context(Side(engine, shape, timeout_seconds))
        except (SideError, PeerUnavailable) as error:
            report.leave_out(f"{engine} on {shape}", str(error))
            continue
        report.add(f"{shape} start", f"{engine}_ready_seconds", side.ready_seconds)
        sides.append(side)
    return sides


def main(argv: list[str]) -> int:
    """1 when our engine did not start or ended; what was missed stands in the table and in the JSON object."""
    parser = argparse.ArgumentParser(prog="./tests/run bench engine", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, 16 output tokens, no transformers")
    parser.add_argument("--shape", action="append", choices=sorted(SHAPES), help="only this shape")
    parser.add_argument("--without", action="append", default=[], help="leave an engine out, such as transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that one answer or a start may take")
    options = parser.parse_args(argv)
    rounds, output = (1, 16) if options.quick else (options.rounds, OUTPUT)
    engines = [
        e for e in ("vllm", "ours-bf16", "ours-int8", "ours-speculate", "transformers") if e not in options.without
    ]
    if options.quick and "transformers" in engines:
        engines.remove("transformers")
    report = Report("engine")
    for shape in options.shape or ("tiny", "0.5b"):
        with ExitStack() as stack:
            wanted = [e for e in engines if shape != "tiny" or e != SPECULATING[1]]
            sides = open_sides(stack, shape, wanted, options.timeout, report)
            comparison = Comparison(shape, sides)
            try:
                measures = ["single", "batch"] if shape == "tiny" else [*MEASURES, *SPECULATION]
                comparison.run(rounds, output, measures)
            except SideError as error:
                report.leave_out(f"{shape}, later rounds", str(error))
            tell(report, comparison, {side.engine: side.ready_seconds for side in sides})
    report.finish()
    return int(any(entry["what"].startswith("ours") for entry in report.as_dict()["left_out"]))


def tell(report: Report, comparison: Comparison, ready: dict[str, float]) -> None:
    """Figures and ratios of one shape."""
    shape = comparison.shape
    for measure, by_engine in comparison.rates.items():
        for engine, rates in by_engine.items():
            note = f"best {max(rates):.1f} of {len(rates)}"
            report.add(shape, f"{measure}_{engine}_tokens_per_second", statistics.median(rates), note)
    for number, limits in enumerate(comparison.limits):
        report.add(f"{shape} limits", f"round_{number + 1}_read_gb_per_second", limits.read_bytes_per_second / 1e9)
        report.add(f"{shape} limits", f"round_{number + 1}_gemm_gflops", limits.flops_per_second / 1e9)
    for measure, by_engine in comparison.rates.items():
        for engine in ("ours-bf16", "ours-int8"):
            name = f"{measure}_{engine[5:]}"
            key = f"tiny_{measure}" if shape == "tiny" else name
            if engine not in by_engine or "vllm" not in by_engine or (shape == "tiny" and engine == "ours-int8"):
                continue
            pairs = zip(by_engine[engine], by_engine["vllm"], strict=False)
            fractions = comparison.fractions.get(name) if shape != "tiny" else None
            report.add_ratio(
                key, statistics.median(a / b for a, b in pairs), statistics.median(fractions) if fractions else None
            )
    for measure in SPECULATION:
        plain, drafted = (comparison.rates[measure][engine] for engine in SPECULATING)
        if plain and drafted:
            ratio = statistics.median(a / b for a, b in zip(drafted, plain, strict=False))
            report.add_ratio(f"speculation_{measure}", ratio)
    if shape == "0.5b" and "vllm" in ready and "ours-bf16" in ready:
        report.add_ratio("cold_start", ready["vllm"] / ready["ours-bf16"])
    for ratio in report.as_dict().get("ratios", []):
        wanted = TARGETS.get(ratio["name"], 0.0)
        if ratio["ratio"] < wanted and ratio.get("limit_fraction", 0.0) < GOOD_FRACTION:
            report.leave_out(f"target of {ratio['name']}", f"asked {wanted:.1f}x, got {ratio['ratio']:.2f}x")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
