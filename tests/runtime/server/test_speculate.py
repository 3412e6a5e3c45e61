"""--speculate from the flag to the client: stop strings, resumed streams and counters of a pod that drafts."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tandem_runtime.contracts.flags import parse_speculation
from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.client import EngineClient
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.router import serve
from tandem_runtime.server.pod import Pod, PodIdentity
from tandem_runtime.server.settings import add_arguments, read_settings
from tandem_runtime.server.signals import Probes
from tandem_runtime.text.byte_tokenizer import ByteTokenizer

from tests.runtime.engine.parrot import Parrot

PROMPT = [2, 9, 4, 7, 3, 5] * 12


@asynccontextmanager
async def pod_of(draft_tokens: int) -> AsyncIterator[Pod]:
    """Without ports."""
    engine = EngineClient(Parrot(), SchedulerSettings(draft_tokens=draft_tokens, prefix_cache=False))
    await engine.load()
    pod = Pod(PodIdentity("p", "both", "r", "i", "127.0.0.1", lambda: "", "m"), engine, ByteTokenizer())
    try:
        yield pod
    finally:
        pod.stop()


async def ask(pod: Pod, emitted: list[int], stop: list[str], sampling: Sampling) -> tuple[list[int], str, Delta]:
    replies: list[Delta | Failed] = []
    ended = asyncio.Event()

    def reply(message: Delta | Failed) -> None:
        replies.append(message)
        if isinstance(message, Failed) or message.finish_reason is not None:
            ended.set()

    submit = Submit("a", 0, PROMPT, sampling, emitted_ids=emitted, stop=stop, remaining_ms=60_000, want_logprobs=1)
    assert pod.submit(submit, reply) is not None
    async with asyncio.timeout(30):
        await ended.wait()
    position, ids, words = len(emitted), [], []
    for delta in replies:
        assert isinstance(delta, Delta), delta
        assert delta.output_index == position
        assert delta.logprobs is not None
        assert len(delta.logprobs) == len(delta.ids)
        position += len(delta.ids)
        ids += delta.ids
        words.append(delta.text)
    last = replies[-1]
    assert isinstance(last, Delta)
    return ids, "".join(words), last


@pytest.mark.parametrize("temperature", [0.0, 0.6])
async def test_stop_strings_and_resumed_streams_end_where_they_end_without_drafts(temperature: float) -> None:
    sampling = Sampling(80, temperature=temperature, seed=6, ignore_eos=True, logprobs=0)
    async with pod_of(0) as plain, pod_of(7) as drafting:
        whole = (await ask(plain, [], [], sampling))[0]
        stops = ([], ["\x00\n"], [chr(whole[40]) + chr(whole[41])], [chr(whole[-2]) + "!", chr(whole[50])])
        for stop in stops:
            for cut in (0, 13, 38):
                want = await ask(plain, whole[:cut], stop, sampling)
                got = await ask(drafting, whole[:cut], stop, sampling)
                assert got[:2] == want[:2]
                assert (got[2].finish_reason, got[2].usage) == (want[2].finish_reason, want[2].usage)
        probes = Probes()
        probes.pod = drafting
        told = probes.signals()
        shown = {metric.name: list(metric.values) for metric in probes.metrics()}
        counters = drafting.engine.engine.scheduler.counters
        assert told["draft_tokens"] >= told["accepted_tokens"] == counters.accepted_tokens > 0
        for name, value in (("draft", counters.draft_tokens), ("accepted", counters.accepted_tokens)):
            [(labels, shown_value)] = shown[f"vllm:spec_decode_num_{name}_tokens_total"]
            assert (dict(labels), shown_value) == ({"model_name": "m"}, value)
        assert plain.engine.engine.scheduler.counters.draft_tokens == 0


def parsed(module: Any, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(("words", "tokens"), [((), 0), (("--speculate", "ngram"), 7), (("--speculate", "ngram:3"), 3)])
def test_the_flag_says_how_long_a_draft_may_be(words: tuple[str, ...], tokens: int) -> None:
    args = parsed(add_arguments, "--executor", "emulated", *words)
    assert read_settings("decode", args).scheduler().draft_tokens == tokens


@pytest.mark.parametrize("words", ["", "eagle", "ngram:", "ngram:0", "ngram:32", "ngram:x", "ngram:-1"])
def test_what_cannot_be_drafted_is_refused_by_name(words: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not ngram or ngram:K with K from 1 to 31"):
        parse_speculation(words)


def test_serve_hands_it_to_its_pods_alone(tmp_path: Any) -> None:
    args = parsed(serve.add_arguments, "--executor", "emulated", "--speculate", "ngram:5")
    router, *pods = serve.make_children(args, serve.make_plan(8000, 1, 1), tmp_path)
    assert "--speculate" not in router._arguments
    assert all("ngram:5" in pod._arguments for pod in pods)
