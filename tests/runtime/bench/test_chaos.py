"""The parts of the benchmark chaos: verdicts that cannot be fooled, and wires that damage what they should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import pack

from tests.bench.chaos_parts.answers import Ask, Reading, Right, Verdict, read_answer
from tests.bench.chaos_parts.tally import Tally, percentile
from tests.bench.chaos_parts.wires import FRAME_FAULTS, FrameFault, Wire, flip_bit

ASK = Ask("p", 3)
RIGHT = Right("abc", 3, "length", 0.1)


def reading(text: str = "abc", status: int = 200, done: bool = True, ended: bool = True, hung: bool = False) -> Reading:
    return Reading(ASK, 0.0, status, text, len(text), "length", done=done, ended=ended, hung=hung)


@pytest.mark.parametrize(
    ("seen", "want"),
    [
        (reading(), "exact"),
        (reading("abd"), "wrong"),
        (reading("ab"), "wrong"),
        (reading("abcc"), "wrong"),
        (reading("ab", done=False, ended=False), "broken"),
        (reading("ad", done=False, ended=False), "wrong"),
        (reading("ab", done=False), "lost"),
        (reading("", status=503, done=False), "lost"),
        (reading("", status=0, done=False, ended=False), "broken"),
        (reading("ab", hung=True), "hung"),
    ],
)
def test_only_the_right_answer_to_its_end_is_exact(seen: Reading, want: Verdict) -> None:
    assert seen.judge(RIGHT) == want


def test_the_pause_is_the_longest_gap_that_ends_after_the_fault() -> None:
    seen = Reading(ASK, 0.0, arrivals=[1.0, 3.0, 3.5, 5.0])
    assert seen.pause(3.2) == (3.5, 1.5)
    assert seen.pause(0.5) == (1.0, 2.0)
    assert Reading(ASK, 0.0, arrivals=[4.0, 4.1]).pause(1.0) == (0.0, 4.0), "before the first token it waits too"


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(1, 201)]
    assert [percentile(values, share) for share in (50, 99, 100)] == [100.0, 198.0, 200.0]
    tally = Tally()
    tally.times["pause"] += [2.0, 1.0]
    assert tally.times_as_dict() == {"pause_p50_seconds": 1.0, "pause_p99_seconds": 2.0, "pause_max_seconds": 2.0}


async def test_a_stream_that_breaks_off_in_the_middle_does_not_look_complete() -> None:
    event = b'data: {"choices": [{"text": "ab", "finish_reason": null}]}\n\n'

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    seen = await read_answer("127.0.0.1", server.sockets[0].getsockname()[1], "m", ASK, 5.0)
    assert (seen.text, seen.judge(RIGHT)) == ("ab", "broken")
    server.close()


def frame(page: int, payload: bytes) -> bytes:
    message = kv.Frame("r", 0, "inc", 0, 1, page, 1, len(payload), 7)
    return pack(kv.encode(message), len(payload)) + payload


FRAMES = [frame(number, bytes([number]) * 50) for number in range(20)]


@asynccontextmanager
async def wired(
    sent: list[bytes], fault: FrameFault | None, cut: bool = False
) -> AsyncIterator[tuple[Wire, asyncio.StreamReader]]:
    """Who listens at a wire in front of someone who sends these."""

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in sent:
            writer.write(each)
            await writer.drain()

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    wire = Wire(("127.0.0.1", server.sockets[0].getsockname()[1]), Random(3), framed=True)
    await wire.listen("127.0.0.1", 0)
    wire.cut = cut
    if fault:
        wire.arm(fault, 3)
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    try:
        yield wire, reader
    finally:
        writer.close()
        wire.close()
        server.close()


async def read_for(reader: asyncio.StreamReader, seconds: float) -> bytes:
    came = b""
    try:
        async with asyncio.timeout(seconds):
            while piece := await reader.read(1 << 16):
                came += piece
    except TimeoutError:
        pass
    return came


@pytest.mark.parametrize("fault", FRAME_FAULTS)
async def test_a_wire_damages_as_many_frames_as_it_was_told_to(fault: FrameFault) -> None:
    async with wired(FRAMES, fault) as (wire, reader):
        came = await read_for(reader, 0.5)
        assert came != b"".join(FRAMES)
        assert 1 <= wire.injected <= 3
        if fault == "duplicated":
            assert len(came) == sum(map(len, FRAMES)) + wire.injected * len(FRAMES[0])


async def test_a_cut_wire_swallows_everything_and_a_mended_one_passes_it_on() -> None:
    async with wired(FRAMES, None, cut=True) as (wire, reader):
        assert await read_for(reader, 0.2) == b""
        wire.cut = False
        want = b"".join(FRAMES)
        assert await asyncio.wait_for(reader.readexactly(len(want)), 10) == want


def test_a_flipped_bit_is_one_bit() -> None:
    random = Random(1)
    for _ in range(200):
        damaged = flip_bit(FRAMES[1], random)
        assert sum((ours ^ theirs).bit_count() for ours, theirs in zip(damaged, FRAMES[1], strict=True)) == 1
