"""A router and real pods with the emulated executor: traces, vLLM's metrics, and logs that hold no text of clients."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tandem_runtime.contracts.trace import TraceContext
from tandem_runtime.server.pod import Pod
from tandem_runtime.server.signals import Probes
from tandem_runtime.telemetry.exposition import render
from tandem_runtime.telemetry.logs import JsonFormatter
from tandem_runtime.telemetry.traces import Tracer

from tests.runtime.router.harness import Harness, running_router
from tests.runtime.server.pods import RunningPod, running_pod

SECRET = "aardvark-in-the-attic"
CLIENT = TraceContext("ab" * 16, "cd" * 8)


@dataclass
class RealPod:
    """A running pod as the harness wants pods."""

    running: RunningPod
    ready: bool = True
    revision: str = "rev1"

    @property
    def name(self) -> str:
        return self.running.pod.identity.pod

    @property
    def role(self) -> str:
        return self.running.pod.identity.role

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.running.internal_port}"

    async def kill(self) -> None:
        """Its context ends it."""


@dataclass
class Fleet:
    """`spans` come when the tracers are closed."""

    router: Harness
    prefill: Pod
    decode: Pod
    bodies: list[bytes]

    def spans(self) -> dict[str, dict[str, Any]]:
        for tracer in (self.router.app.tracer, self.prefill.requests.tracer, self.decode.requests.tracer):
            tracer.close()
        scopes = [r["scopeSpans"][0]["spans"] for body in self.bodies for r in json.loads(body)["resourceSpans"]]
        return {span["name"]: span for spans in scopes for span in spans}


@asynccontextmanager
async def running_fleet() -> AsyncIterator[Fleet]:
    async with running_pod("prefill") as prefill, running_pod("decode") as decode:
        pods: Any = [RealPod(prefill), RealPod(decode)]
        async with running_router(*pods) as router:
            bodies: list[bytes] = []
            router.app.tracer, prefill.pod.requests.tracer, decode.pod.requests.tracer = (
                Tracer(bodies.append, {}, 0.0) for _ in range(3)
            )
            yield Fleet(router, prefill.pod, decode.pod, bodies)


def samples(pod: Pod) -> dict[tuple[str, str], float]:
    """(name, finish reason or edge) -> value, of metrics with vLLM's names; each has the model's name."""
    probes = Probes()
    probes.pod = pod
    found = {}
    for family in text_string_to_metric_families(render(probes.metrics()).decode()):
        for sample in family.samples:
            if sample.name.startswith("vllm:"):
                assert sample.labels["model_name"] == "chat"
                label = sample.labels.get("finished_reason") or sample.labels.get("le") or ""
                found[sample.name, label] = sample.value
    return found


async def test_one_trace_goes_through_router_prefill_transfer_and_decode() -> None:
    async with running_fleet() as fleet:
        headers = {"traceparent": CLIENT.header()}
        status, _, _ = await fleet.router.complete("hello " * 40, max_tokens=5, headers=headers)
        assert status == 200
        spans = fleet.spans()
    assert set(spans) == {"router.request", "router.queue", "prefill", "transfer", "decode"}
    request = spans.pop("router.request")
    assert (request["traceId"], request["parentSpanId"]) == (CLIENT.trace_id, CLIENT.span_id)
    assert {span["traceId"] for span in spans.values()} == {CLIENT.trace_id}
    assert {span["parentSpanId"] for span in spans.values()} == {request["spanId"]}
    assert int(spans["transfer"]["endTimeUnixNano"]) == int(spans["decode"]["startTimeUnixNano"])


async def test_metrics_of_requests_have_the_names_and_labels_of_vllm() -> None:
    async with running_fleet() as fleet:
        for _ in range(2):
            status, _, _ = await fleet.router.complete("hello " * 40, max_tokens=5)
            assert status == 200
        decode, prefill = samples(fleet.decode), samples(fleet.prefill)
    assert decode["vllm:request_success_total", "length"] == 2
    assert decode["vllm:time_to_first_token_seconds_count", ""] == 2
    assert decode["vllm:e2e_request_latency_seconds_count", ""] == 2
    assert decode["vllm:inter_token_latency_seconds_count", ""] == 8
    assert decode["vllm:request_time_per_output_token_seconds_count", ""] == 2
    assert decode["vllm:request_generation_tokens_sum", ""] == 10
    assert decode["vllm:generation_tokens_total", ""] == 10
    assert decode["vllm:num_requests_running", ""] == 0
    assert 0 <= decode["vllm:kv_cache_usage_perc", ""] <= 1
    assert prefill["vllm:request_prefill_time_seconds_count", ""] == 2
    assert prefill["vllm:request_prompt_tokens_sum", ""] > 2 * 200


async def test_each_choice_counts_as_a_request_for_goodput_and_the_prompt_once_for_usage() -> None:
    async with running_fleet() as fleet:
        status, answer, _ = await fleet.router.complete("hello", max_tokens=6, n=3, logprobs=1, temperature=1.0, seed=5)
        assert status == 200, answer
        signals = await fleet.router.signals()
    assert answer["usage"]["completion_tokens"] == 18
    assert [len(choice["logprobs"]["tokens"]) for choice in answer["choices"]] == [6, 6, 6]
    [totals] = [each for each in signals["classes"].values() if each["arrivals"]] or [{}]
    assert (totals["arrivals"], totals["met"] + totals["missed"], totals["output_tokens"]) == (3, 3, 18)


async def test_no_log_line_holds_text_of_a_client(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers: list[str] = []
    async with running_fleet() as fleet:
        post = fleet.router.post
        chat = [{"role": "user", "content": SECRET}]
        answers.append((await fleet.router.complete(SECRET, max_tokens=40))[1]["choices"][0]["text"])
        answers.append(await fleet.router.stream_text(SECRET, max_tokens=40))
        assert (await post("/v1/chat/completions", {"model": "chat", "messages": chat, "n": 2, "logprobs": True}))[
            0
        ] == 200
        for body in (
            {"model": SECRET, "prompt": SECRET},
            {"model": "chat", "prompt": SECRET, SECRET: 1},
            {"model": "chat", "prompt": SECRET, "stop": [SECRET] * 99},
            {"model": "chat", "prompt": SECRET * 9000, "max_tokens": 100},
            {"model": "chat", "messages": [{"role": SECRET, "content": SECRET}]},
            SECRET.encode(),
        ):
            for path in ("/v1/completions", "/v1/chat/completions", "/tokenize"):
                await post(path, body, **{"x-tandem-class": "default"})
        fleet.decode.engine.engine.stop()
        await post(
            "/v1/completions", {"model": "chat", "prompt": SECRET, "max_tokens": 4}, **{"x-tandem-timeout-ms": "300"}
        )
    lines = [JsonFormatter("router", "r").format(record) for record in caplog.records if record.name != "asyncio"]
    assert len([line for line in lines if '"tandem.access"' in line]) >= 10
    for line in lines:
        assert SECRET not in line
        assert not any(answer in line for answer in answers)
        assert json.loads(line)["level"]
