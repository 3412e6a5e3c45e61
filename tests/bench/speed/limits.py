"""What the machine allows, measured now: bytes read in a second, and multiply-adds of float32 matrices."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import torch
from tandem_runtime.ops.native import load_native
from tandem_runtime.ops.packed import huge_memory

READ_BYTES = 1 << 30
MATRIX = 1536
TRIALS = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """The best of TRIALS each: what runs beside us must not make the limit look low."""

    read_bytes_per_second: float
    flops_per_second: float


@dataclass(frozen=True, slots=True)
class Shape:
    """What one token costs."""

    body_parameters: int
    head_parameters: int

    def decode_limit(self, limits: Limits, bytes_per_parameter: float, batch: int = 1) -> float:
        """Tokens per second of `batch` sequences: all weights are read (the head always in bfloat16), and every
        parameter is multiplied."""
        parameters = self.body_parameters + self.head_parameters
        read = self.body_parameters * bytes_per_parameter + self.head_parameters * 2
        memory = read / limits.read_bytes_per_second
        return batch / max(memory, 2 * parameters * batch / limits.flops_per_second)

    def prefill_limit(self, limits: Limits) -> float:
        """Prompt tokens per second by arithmetic; the head sees one token only."""
        return limits.flops_per_second / (2 * self.body_parameters)


def shape_of(config: dict[str, Any]) -> Shape:
    """Of a tied model of checkpoint.SHAPES."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner
    return Shape(layer * config["num_hidden_layers"], hidden * config["vocab_size"])


def measure_limits() -> Limits:
    """A few seconds."""
    threads = len(os.sched_getaffinity(0))
    native = load_native(threads)
    best_read, best_product = math.inf, math.inf
    if native is not None:
        memory = huge_memory(READ_BYTES)
        memory.fill_(1)
        for _ in range(TRIALS):
            begin = time.perf_counter()
            native.read(memory)
            best_read = min(best_read, time.perf_counter() - begin)
    torch.set_num_threads(threads)
    left, right = torch.randn(2, MATRIX, MATRIX)
    for _ in range(TRIALS):
        begin = time.perf_counter()
        left @ right
        best_product = min(best_product, time.perf_counter() - begin)
    return Limits(READ_BYTES / best_read, 2 * MATRIX**3 / best_product)
