"""Emulated pods as real processes: size, start, end, and a kill in the middle of a transfer."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import msgspec
import pytest
from tandem_runtime.contracts.coefficients import Coefficients
from tandem_runtime.contracts.pod_protocol import Delta
from tandem_runtime.models.make_model import make_model

from tests.processes.pods import START_SECONDS, end, pods, start_pod
from tests.runtime.server.pods import FAST, router, submit, until

EMULATED = ("--executor", "emulated")
PROMPT = "once upon a time there was a pod that computed prompts for another one " * 10
RSS_LIMIT_BYTES = 80 << 20


def slow_link(folder: Path) -> tuple[str, ...]:
    """Flags of a pod whose pages take 50 ms each."""
    slow: Coefficients = msgspec.structs.replace(
        FAST, link=msgspec.structs.replace(FAST.link, bytes_per_s=FAST.kv_bytes_per_token * 32 / 0.05)
    )
    file = folder / "slow.json"
    file.write_bytes(msgspec.json.encode(slow))
    return (*EMULATED, "--coefficients", str(file))


async def test_two_emulated_pods_serve_a_request_stay_small_and_end_on_sigterm(tmp_path: Path) -> None:
    async with pods(tmp_path, *EMULATED) as (prefill, decode), router(decode.ports["internal"]) as client:
        ids, _, last = await client.answer(submit("a", PROMPT, 20, prefill.peer))
        assert len(ids) == 20
        assert last.usage is not None
        assert last.usage.prefilled_here == 0
        sent, received = (
            await prefill.metric("tandem_kv_tx_bytes_total"),
            await decode.metric("tandem_kv_rx_bytes_total"),
        )
        assert sent == received == last.usage.kv_bytes_received > 0
        for pod in (prefill, decode):
            assert pod.rss_bytes() < RSS_LIMIT_BYTES, f"{pod.name}: {pod.rss_bytes() >> 20} MiB"
            assert not any(word in pod.memory_maps() for word in ("libtorch", "numpy", "tokenizers"))
            assert (await pod.get("/healthz"))[0] == 200
            assert '"iterations"' in (await pod.get("/signals"))[1]
            await until_metric_zero(pod.metric, "tandem_engine_used_pages")
            assert await pod.metric("tandem_engine_leaked_pages") == 0
            pod.process.send_signal(signal.SIGTERM)
            assert await pod.process.wait() == 0
            lines = await pod.logs()
            assert {"ready", "drained"} <= {line["message"].split()[0].strip(";") for line in lines}
            assert not any("once upon" in str(line) for line in lines), "no prompt text in the log"


async def until_metric_zero(metric, name: str) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(10):
        while await metric(name) != 0:
            await asyncio.sleep(0.02)


def test_an_emulated_pod_imports_neither_torch_nor_numpy_nor_an_http_framework() -> None:
    code = (
        "import sys, tandem_runtime.__main__, tandem_runtime.server.command, tandem_runtime.engine.emulated_executor;"
        "print(sorted({'torch','numpy','transformers','tokenizers','aiohttp','pydantic','jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_prefill_pod_killed_or_frozen_in_the_middle_of_a_transfer_costs_time_not_the_answer(
    tmp_path: Path, blow: signal.Signals
) -> None:
    async with pods(tmp_path, *slow_link(tmp_path)) as (prefill, decode), router(decode.ports["internal"]) as client:
        client.send(submit("a", PROMPT, 20, prefill.peer))
        async with asyncio.timeout(20):
            while await decode.metric("tandem_kv_rx_frames_total") < 2:
                await asyncio.sleep(0.02)
        prefill.process.send_signal(blow)
        last = await client.ended("a")
        assert isinstance(last, Delta)
        want, _, _ = await client.answer(submit("alone", PROMPT, 20))  # not before: its pages would stay cached
        assert [token for d in client.of("a") if isinstance(d, Delta) for token in d.ids] == want
        assert last.usage is not None
        assert last.usage.prefilled_here == len(PROMPT)
        await until_metric_zero(decode.metric, "tandem_engine_used_pages")


async def test_sigterm_lets_a_running_answer_finish_and_reads_as_not_ready_meanwhile(tmp_path: Path) -> None:
    async with (
        pods(tmp_path, *EMULATED, roles=("decode",)) as (decode,),
        router(decode.ports["internal"]) as client,
    ):
        client.send(submit("a", PROMPT, 300))
        await client.heard(Delta)
        decode.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while (await decode.get("/readyz"))[0] != 503:
                await asyncio.sleep(0.01)
        last = await client.ended("a")
        assert isinstance(last, Delta)
        assert last.finish_reason == "length"
        assert await decode.process.wait() == 0
        await until(lambda: client.closed)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "--model DIR is needed"),
        (("--executor", "emulated", "--coefficients", "abacus"), 2, "abacus"),
        (("--executor", "emulated", "--token-file", "/nowhere/token"), 2, "/nowhere/token"),
        (("--executor", "emulated", "--metrics-port", "1", "--bind", "192.0.2.1"), 2, "cannot listen"),
        (("--executor", "emulated", "--internal-port", "99999"), 2, "--internal-port: '99999' is not a port"),
        (("--executor", "abacus"), 2, "--executor"),
        (("--executor", "emulated", "--max-context-tokens", "0"), 2, "--max-context-tokens"),
        (("--model", "/nowhere/model"), 3, "/nowhere/model"),
    ],
)
async def test_a_pod_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, flags: tuple[str, ...], code: int, words: str
) -> None:
    pod = await start_pod("decode", tmp_path, *flags)
    try:
        async with asyncio.timeout(START_SECONDS):
            assert await pod.process.wait() == code
        assert pod.process.stderr is not None
        [line] = (await pod.process.stderr.read()).decode().splitlines()
        assert words in line
        if code == 3 or "/nowhere" in words:  # flags that argparse refuses are seen before the log's name
            assert words in (tmp_path / "decode.termination").read_text()
    finally:
        await end(pod)


async def test_a_both_pod_answers_openai_requests_and_a_client_that_leaves_frees_its_pages(tmp_path: Path) -> None:
    async with (
        pods(tmp_path, *EMULATED, "--model-name", "chat", roles=("both",)) as (pod,),
        aiohttp.ClientSession(f"http://127.0.0.1:{pod.ports['http']}") as session,
    ):
        body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12}
        async with session.post("/v1/chat/completions", json=body) as response:
            answer = await response.json()
        assert response.status == 200, answer
        assert len(answer["choices"][0]["message"]["content"]) == answer["usage"]["completion_tokens"] == 12
        long = body | {"stream": True, "max_tokens": 100_000, "ignore_eos": True}
        async with session.post("/v1/chat/completions", json=long) as response:
            async for _ in response.content:
                break
            response.close()
        await until_metric_zero(pod.metric, "tandem_engine_used_pages")
        assert await pod.metric("tandem_engine_leaked_pages") == 0
        pod.process.send_signal(signal.SIGTERM)
        assert await pod.process.wait() == 0


async def test_a_checkpoint_that_cannot_be_loaded_ends_the_pod_with_the_file_s_name(tmp_path: Path) -> None:
    model = tmp_path / "model"
    make_model(model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    pod = await start_pod("prefill", tmp_path, "--model", str(model))
    try:
        async with asyncio.timeout(START_SECONDS):
            assert await pod.process.wait() == 3
        said = (tmp_path / "prefill.termination").read_text()
        assert "model.safetensors" in said
        assert said.count("\n") == 1
    finally:
        await end(pod)


async def test_sigterm_while_the_model_loads_ends_at_once(tmp_path: Path) -> None:
    coefficients = msgspec.structs.replace(FAST, load_s=600.0)
    file = tmp_path / "slow-load.json"
    file.write_bytes(msgspec.json.encode(coefficients))
    pod = await start_pod("decode", tmp_path, *EMULATED, "--coefficients", str(file), "--emulate-load")
    try:
        async with asyncio.timeout(30):
            while (await pod.get("/healthz"))[0] != 200:
                await asyncio.sleep(0.02)
            assert (await pod.get("/readyz"))[0] == 503
            pod.process.send_signal(signal.SIGTERM)
            assert await pod.process.wait() == 0
    finally:
        await end(pod)
