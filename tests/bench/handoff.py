"""What a hand-off costs: time to first token of a 1,024-token prompt from two pods beside one, and GB/s of the link.

Real processes, pages of Qwen2.5-0.5B's size; the limit is a bare copy of the same bytes over a loopback socket.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.handoff_parts.pairs import Samples, measure
from tests.bench.handoff_parts.shape import (
    KV_BYTES_PER_TOKEN,
    PROMPT_TOKENS,
    emulated_flags,
    kv_only_flags,
    whole_model_flags,
)
from tests.bench.report import MISSED, Report

LIMIT_SECONDS: Final = 0.025
TRANSPORTS: Final = ["tcp", "shm"]
QUICK_TRIALS, TRIALS, TORCH_TRIALS, WHOLE_TRIALS = 15, 60, 15, 3
WHOLE_SECONDS: Final = 300.0
"""Longer than that nobody waits for the whole model on a machine without fast bfloat16."""


def add(report: Report, section: str, samples: Samples, note: str, limit: float | None) -> None:
    """Medians; the best in the note, because the machine may be shared."""
    report.add(section, "both_ttft_seconds", median(samples.seconds["both"]), note)
    for name in [name for name in TRANSPORTS if name in samples.seconds]:
        best = f"best {samples.best_added(name) * 1000:.1f} ms; {name}, median of differences"
        report.add(section, f"{name}_added_ttft_seconds", samples.added(name), best, limit)
        words = "of processors, both pods together, less one pod alone"
        report.add(section, f"{name}_added_cpu_seconds", samples.added_cpu(name), words)


def add_link(report: Report, samples: Samples) -> float:
    """GB/s and share of the limit of each transport; returns the best share."""
    raw = samples.kv_bytes / min(samples.seconds["loopback"]) / 1e9
    typical = samples.kv_bytes / median(samples.seconds["loopback"]) / 1e9
    report.add("link", "loopback_socket_gb_per_s", raw, f"bare copy between two processes, best; median {typical:.2f}")
    cpu = median(samples.cpu_seconds["loopback"])
    report.add("link", "loopback_socket_cpu_seconds", cpu, "of processors, both ends of the bare copy")
    for name in TRANSPORTS:
        probe = samples.kv_bytes / samples.seconds[f"{name} probe"][0] / 1e9
        report.add("link", f"{name}_test_block_gb_per_s", probe, "as the pods measure it, checksum included")
        share = min(samples.seconds["loopback"]) / max(samples.best_added(name), 1e-9)
        moved = samples.kv_bytes / max(samples.best_added(name), 1e-9) / 1e9
        report.add("link", f"{name}_handoff_gb_per_s", moved, "best: all of the hand-off, page to page")
        report.add_ratio(f"{name} hand-off / bare loopback copy", share, share)
        raw_cpu = median(samples.cpu_seconds["loopback"])
        cpu_share = raw_cpu / samples.added_cpu(name)
        report.add_ratio(f"{name} hand-off / bare copy, processor time", cpu_share, cpu_share)
        report.add_ratio(f"{name} test block / bare loopback copy", probe / raw, probe / raw)
    return raw


def run(options: argparse.Namespace, report: Report) -> float:
    """All stages; returns the added seconds that the project asks about."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "emulated").mkdir()
        trials = options.trials or (QUICK_TRIALS if options.quick else TRIALS)
        flags = emulated_flags(folder)
        samples = asyncio.run(measure(folder / "emulated", flags, TRANSPORTS, trials, loopback=True))
        words = f"nothing hides the transfer; {trials} trials, load {load:.0f}"
        add(report, "emulated, full pages", samples, words, LIMIT_SECONDS)
        add_link(report, samples)
        if options.quick:
            report.leave_out("torch executor", "quick; run without --quick")
        else:
            measure_torch(report, folder)
    return min(samples.added(name) for name in TRANSPORTS)


def measure_torch(report: Report, folder: Path) -> None:
    """Real tensors; on two cores all processes share them, and so does what is beside them."""
    stages = {
        "torch, pages only": (kv_only_flags, TORCH_TRIALS, "24 layers, hidden 128: pages of the shape, few weights"),
        "torch, whole shape": (whole_model_flags, WHOLE_TRIALS, "random weights; compute hides the transfer"),
    }
    for index, (section, (make_flags, trials, note)) in enumerate(stages.items()):
        home = folder / f"torch{index}"
        home.mkdir()
        flags = [*make_flags(home), "--max-context-tokens", "2048"]
        try:
            work = asyncio.wait_for(measure(home, flags, TRANSPORTS[-1:], trials, loopback=False), WHOLE_SECONDS)
            add(report, section, asyncio.run(work), note, None)  # type: ignore[arg-type]
        except (TimeoutError, RuntimeError, AssertionError) as error:
            report.leave_out(section, f"{type(error).__name__} {error}".strip() or f"{WHOLE_SECONDS:.0f} s were up")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./tests/run bench handoff", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="emulated pods alone, under a minute")
    parser.add_argument("--trials", type=int, default=0, help="of the emulated pods")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Exit code 3 when the first token comes too late."""
    options, report, started = parse(argv), Report("handoff"), time.monotonic()
    added = run(options, report)
    report.add("run", "prompt_tokens", PROMPT_TOKENS, f"{KV_BYTES_PER_TOKEN} bytes of KV each")
    report.add("run", "added_ttft_ms", added * 1000, "best transport, emulated", LIMIT_SECONDS * 1000)
    report.add("run", "elapsed_seconds", time.monotonic() - started)
    report.finish()
    return MISSED if added > LIMIT_SECONDS else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
