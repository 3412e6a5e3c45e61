"""Requests and their right answers, told by one undisturbed `both` pod; and the flags of the two executors."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

from tests.bench.chaos_parts.answers import Ask, Right, read_answer
from tests.bench.chaos_parts.fleet import MODEL, free_ports, write_token
from tests.bench.chaos_parts.processes import Process, runtime

Bank = dict[Ask, Right]
PATIENCE_SECONDS: Final = 300.0
TEXT: Final = "the sea and a lighthouse far from any harbour where old ships wait for wind or rain in winter"
COEFFICIENTS: Final = {
    "schema": 1,
    # 0.4 ms a prompt token and 20 ms a step: prompts take 0.1 to 0.3 s and answers about two seconds, on any machine.
    "prefill": {"theta0_s": 0.002, "theta1_s": 4e-4, "theta2_s": 0.0},
    "decode": {"phi0_s": 0.02, "phi1_s": 0.0, "phi2_s": 0.0},
    "link": {"setup_s": 0.0005, "bytes_per_s": 2e9},
    "kv_bytes_per_token": 16384,
    "kv_tokens": 16384,
    "max_sequences": 32,
    "load_s": 0.0,
}


def emulated_executor(folder: Path) -> tuple[str, ...]:
    """Real pages under the real protocol, which it compares with what they should be."""
    file = folder / "coefficients.json"
    file.write_text(json.dumps(COEFFICIENTS))
    return ("--executor", "emulated", "--coefficients", str(file))


def torch_executor(model: Path) -> tuple[str, ...]:
    """The tiny model: a wrong page changes its words."""
    return ("--executor", "torch", "--model", str(model), "--deterministic")


def draw_asks(random: Random, count: int, characters: tuple[int, int], tokens: tuple[int, int]) -> list[Ask]:
    """`count` prompts of so many characters, answers of so many tokens; some sampled, not streamed, or with a stop."""
    asks = []
    for index in range(count):
        prompt, size = f"{index}", random.randint(*characters)
        while len(prompt) < size:
            prompt += " " + random.choice(TEXT.split())
        sampled = index % 2 == 1
        asks.append(
            Ask(
                prompt,
                random.randint(*tokens),
                temperature=0.8 if sampled else 0.0,
                seed=random.randrange(1 << 30) if sampled else 0,
                stop="zq" if index % 8 == 3 else "",
                stream=index % 8 != 5,
            )
        )
    return asks


async def make_bank(executor: tuple[str, ...], folder: Path, asks: list[Ask]) -> Bank:
    """Asks one after another; times of the answers are of an idle pod."""
    write_token(folder)
    http, internal, kv, metrics = free_ports(4)
    command = runtime(
        "both", *executor, "--pod-name", "reference", "--bind", "127.0.0.1", "--revision", "r", "--model-name", MODEL,
        "--token-file", str(folder / "token"), "--http-port", str(http), "--internal-port", str(internal),
        "--kv-port", str(kv), "--metrics-port", str(metrics), "--termination-log", str(folder / "reference.end"),
    )  # fmt: skip
    pod = Process("reference", command, "127.0.0.1", metrics)
    await pod.start()
    try:
        await pod.ready()
        readings = await asyncio.gather(*(read_answer("127.0.0.1", http, MODEL, ask, PATIENCE_SECONDS) for ask in asks))
        bank: Bank = {}
        for reading in readings:
            if reading.status != 200 or not reading.done or not reading.ended:
                raise RuntimeError(f"the undisturbed pod did not answer: {reading.status} {reading.problem}")
            bank[reading.ask] = Right(reading.text, reading.tokens, reading.reason, 0.0, reading.seconds)
        ttft_seconds = 0.0
        for ask in asks[:3]:  # alone: how long an answer takes to begin
            alone = await read_answer("127.0.0.1", http, MODEL, ask, PATIENCE_SECONDS)
            began = (alone.arrivals or [time.monotonic()])[0] - alone.sent_at
            ttft_seconds = max(ttft_seconds, began)
        return {ask: replace(right, ttft_seconds=ttft_seconds) for ask, right in bank.items()}
    finally:
        await pod.end()
