"""Our engine, scheduler included, told on stdin what to measure; answers on stdout, one JSON a line.

Usage: python -m tests.bench.speed.ours_side CHECKPOINT bf16|int8|speculate
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.client import EngineClient
from tandem_runtime.engine.events import Broken, Event, Finished, Output
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.torch_executor import TorchExecutor

CONTEXT_TOKENS = 2048
STEP_TOKENS = 1024
"""Prompt tokens of a step: the peer gets 2,048."""
DRAFT_TOKENS = 7
"""Of `speculate`: with them a single sequence fills a step of eight rows."""


class Sink:
    """Counts the tokens of one request; `done` says when, or why not."""

    def __init__(self) -> None:
        self.tokens = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_event(self, event: Event) -> None:
        """Called by the client."""
        if isinstance(event, Output):
            self.tokens += len(event.ids)
        elif isinstance(event, Finished):
            self.done.set_result(None)
        elif isinstance(event, Broken):
            self.done.set_exception(RuntimeError(event.message))


async def generate(client: EngineClient, prompts: list[list[int]], tokens: int, **more: Any) -> float:
    """Seconds until the last of them is answered; `more` of Sampling."""
    sampling = Sampling(max_tokens=tokens, ignore_eos=True, **more)
    begin = time.perf_counter()
    sinks = [Sink() for _ in prompts]
    for sink, prompt in zip(sinks, prompts, strict=True):
        client.open(sink, prompt, [], sampling, 3600.0)
    await asyncio.gather(*(sink.done for sink in sinks))
    taken = time.perf_counter() - begin
    assert all(sink.tokens == tokens for sink in sinks), [sink.tokens for sink in sinks]
    return taken


async def serve(checkpoint: Path, weights: str) -> None:
    """Until stdin ends."""
    executor = TorchExecutor(
        checkpoint, device="cpu", dtype="bfloat16", int8=weights == "int8", max_context_tokens=CONTEXT_TOKENS
    )
    drafts = DRAFT_TOKENS if weights == "speculate" else 0
    client = EngineClient(executor, SchedulerSettings(step_tokens=STEP_TOKENS, draft_tokens=drafts))
    await client.load()
    await generate(client, [[5, 6, 7]], 2)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, object] = {
            "seconds": await generate(client, order["prompts"], order["tokens"], **order.get("sampling", {}))
        }
        if executor.native is not None and order.get("profile"):
            answer["parts"] = executor.native.part_seconds(reset=True)
        print(json.dumps(answer), flush=True)
    client.engine.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
