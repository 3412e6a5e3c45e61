"""The engine over real weights: what the cache holds, and what is computed again, are the very tokens of a lone run."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.client import EngineClient
from tandem_runtime.engine.events import Broken, Event, Finished, Output
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.torch_executor import TorchExecutor

PROMPT = [(7 * place) % 400 + 5 for place in range(100)]


class Answer:
    """Everything that came of one request."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.cached_tokens = 0
        self.ended = asyncio.Event()

    def on_event(self, event: Event) -> None:
        assert not isinstance(event, Broken), event
        if isinstance(event, Output):
            self.ids += event.ids
            self.cached_tokens = event.cached_tokens
        elif isinstance(event, Finished):
            self.ended.set()


async def start(model: Path, pages: int | None = None, *, prefix_cache: bool = True) -> EngineClient:
    executor = TorchExecutor(model, deterministic=True, device="cpu", max_context_tokens=320)
    if pages is not None:
        page_bytes = executor.load().layout.page_bytes
        executor = TorchExecutor(
            model, deterministic=True, device="cpu", max_context_tokens=320, kv_memory_bytes=pages * page_bytes
        )
    client = EngineClient(executor, SchedulerSettings(deterministic=True, prefix_cache=prefix_cache, headroom_tokens=0))
    await client.load()
    return client


async def ask(client: EngineClient, prompt: list[int], tokens: int = 40, temperature: float = 0.0) -> Answer:
    answer = Answer()
    client.open(answer, prompt, [], Sampling(tokens, temperature=temperature, seed=5, ignore_eos=True), 60.0)
    async with asyncio.timeout(60):
        await answer.ended.wait()
    return answer


async def test_a_cached_prefix_of_prompt_and_answer_changes_no_token(sample_model: Path) -> None:
    runs: list[list[list[int]]] = []
    for prefix_cache in (True, False):
        client = await start(sample_model, prefix_cache=prefix_cache)
        first = await ask(client, PROMPT)
        again = await ask(client, PROMPT)
        on = await ask(client, [*PROMPT, *first.ids[:30], 9, 8, 7], temperature=0.8)
        assert (again.cached_tokens, on.cached_tokens) == ((96, 128) if prefix_cache else (0, 0))
        assert client.engine.scheduler.leaked_pages() == 0
        client.engine.stop()
        runs.append([first.ids, again.ids, on.ids])
    assert runs[0] == runs[1]
    assert runs[0][0] == runs[0][1]


async def test_who_gives_its_pages_up_goes_on_with_the_same_tokens(sample_model: Path) -> None:
    client = await start(sample_model, pages=10)
    prompts = [[token + shift for token in PROMPT[:60]] for shift in range(3)]
    together = await asyncio.gather(*(ask(client, prompt, 60) for prompt in prompts))
    assert client.engine.scheduler.counters.preempted > 0
    alone = [await ask(client, prompt, 60) for prompt in prompts]
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    client.engine.stop()
