"""The load generator against a real router, and against servers that misbehave."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from tandem_runtime.bench.command import add_arguments, make_classes, make_schedule, make_target, run
from tandem_runtime.bench.load import Load, Target
from tandem_runtime.bench.results import Results, end_of, table
from tandem_runtime.bench.schedule import Due
from tandem_runtime.bench.stream import LOST, Exchange
from tandem_runtime.contracts.classes import Classes
from tandem_runtime.contracts.goodput import End, SloClass
from tandem_runtime.policy.waiting import QueueLimits

from tests.runtime.router.fake_pod import FakePod
from tests.runtime.router.harness import MODEL, running_router

CHAT = SloClass(name="chat", ttft_base_s=5.0, tpot_s=1.0)
HURRY = SloClass(name="hurry", ttft_base_s=0.001, tpot_s=1.0)


async def loaded(
    port: int, schedule: list[Due], classes: list[SloClass] | None = None, timeout_seconds: float = 20.0
) -> tuple[dict[str, Any], list[Exchange]]:
    """The result and every exchange."""
    results, ended = Results(Classes(classes)), []

    def end(exchange: Exchange) -> None:
        ended.append(exchange)
        results.add(exchange)

    load = Load(Target("127.0.0.1", port, MODEL, timeout_seconds=timeout_seconds), end, Random(0))
    seconds = await load.run(schedule)
    return results.as_dict(seconds, load.most_open), ended


async def test_clients_see_what_the_router_counts() -> None:
    pods = [FakePod("d0", token_seconds=0.002), FakePod("d1", token_seconds=0.002)]
    schedule = [Due(index / 100, 20, 10, "hurry" if index % 4 == 0 else "chat") for index in range(60)]
    async with running_router(*pods, classes=[CHAT, HURRY]) as router:
        result, ended = await loaded(router.app.http_port, schedule, [CHAT, HURRY])
        totals = router.app.counters.totals
    assert (result["requests"], result["completed"], result["statuses"]) == (60, 60, {"200": 60})
    assert {exchange.output_tokens for exchange in ended} == {10}
    assert all(exchange.complete for exchange in ended)
    assert (result["classes"]["chat"]["met"], result["classes"]["hurry"]["missed"]) == (45, 15)
    assert (totals["chat"].met, totals["hurry"].arrivals) == (45, 15)
    assert totals["chat"].output_tokens == 450
    for exchange in ended:
        assert exchange.first_at is not None
        assert exchange.last_at is not None
        assert exchange.due_at <= exchange.sent_at <= exchange.first_at <= exchange.last_at <= exchange.ended_at
    assert 0.002 <= result["tpot_s"]["p50"] < 0.5
    assert "attainment 75.00%" in table(result)


async def test_requests_leave_when_they_are_due_however_slow_the_server_is() -> None:
    async with running_router(FakePod("d0", token_seconds=0.6)) as router:
        result, _ = await loaded(router.app.http_port, [Due(index / 50, 5, 2) for index in range(20)])
    assert result["most_open"] == 20, "none waited for the one before"


async def test_a_request_that_is_turned_away_is_shed_and_its_reason_is_told() -> None:
    async with running_router(limits=QueueLimits(wait_for_pods_seconds=0.05)) as router:
        result, _ = await loaded(router.app.http_port, [Due(0.0, 5, 2), Due(0.01, 5, 2)])
    assert result["statuses"] == {"503 no_pod": 2}
    assert (result["classes"]["default"]["shed"], result["attainment"], result["completion"]) == (2, 0.0, 0.0)


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[int]:
    """Says that to every request and closes; None: says nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is not None:
            writer.write(answer)
            await writer.drain()
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'2c\r\ndata: {"choices":[{"text":"a","index":0}]}\n\n\r\n'


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", f"{LOST} connection lost"),
        (HEAD + EVENT, f"{LOST} connection lost"),
        (HEAD + EVENT + b"0\r\n\r\n", "200 cut off"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno", "500"),
    ],
)
async def test_an_answer_that_breaks_off_is_a_failure_and_never_counts_as_complete(answer: bytes, status: str) -> None:
    async with server(answer) as port:
        result, _ = await loaded(port, [Due(0.0, 5, 2)])
    assert result["statuses"] == {status: 1}
    assert (result["classes"]["default"]["failed"], result["completed"]) == (1, 0)


async def test_nobody_there_is_a_failure_too_and_a_hung_server_ends_with_the_timeout() -> None:
    async with server(b"") as port:
        pass
    result, _ = await loaded(port, [Due(0.0, 5, 2)])
    assert result["statuses"] == {f"{LOST} cannot connect: ConnectionRefusedError": 1}
    async with server(None) as port:
        result, _ = await loaded(port, [Due(0.0, 5, 2)], timeout_seconds=0.1)
    assert result["statuses"] == {f"{LOST} no answer in time": 1}
    assert result["classes"]["default"]["failed"] == 1


async def test_many_streams_at_once_are_driven_by_one_process() -> None:
    pods = [FakePod(f"d{index}", token_seconds=0.05) for index in range(2)]
    async with running_router(*pods) as router:
        result, _ = await loaded(router.app.http_port, [Due(index / 2000, 3, 6) for index in range(300)])
    assert result["statuses"] == {"200": 300}
    assert result["most_open"] > 100


def flags(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["load", "--url", "http://h:8000/v1", "--model", "m", *words])


def test_the_address_is_understood_with_and_without_the_version_and_flags_make_the_load() -> None:
    args = flags("--rate", "10", "--duration", "2s", "--prompt-tokens", "100:0.5", "--class", "a=2", "--class", "b")
    target = make_target(args)
    assert (target.host, target.port, target.path) == ("h", 8000, "/v1/completions")
    assert {due.request_class for due in make_schedule(args)} == {"a", "b"}
    objective = make_classes(flags("--rate", "1", "--ttft", "500ms", "--tpot", "50ms"))
    assert (objective.default.ttft_base_s, objective.default.tpot_s) == (0.5, 0.05)
    assert objective.find("anything") == objective.default


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--rate R or --trace FILE is needed"),
        (["--trace", "/nowhere.csv"], "--trace /nowhere.csv"),
        (["--rate", "1", "--trace", "x.csv"], "--trace has its own rate"),
        (["--rate", "1", "--classes", "/nowhere.json"], "no classes file /nowhere.json"),
        (["--rate", "1", "--url", "ftp://x"], "is not of the form"),
    ],
)
def test_wrong_flags_end_with_one_line_that_says_which(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(flags(*words)) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "reason", "want"),
    [
        (429, "late", End.SHED),
        (503, "no_pod", End.SHED),
        (429, "key_request_rate", End.REFUSED),
        (401, "", End.REFUSED),
    ],
)
def test_a_key_over_its_own_limit_is_no_fault_of_the_fleet(status: int, reason: str, want: End) -> None:
    assert end_of(Exchange(Due(0.0, 1, 1, ""), 0.0, status=status, reason=reason)) is want
