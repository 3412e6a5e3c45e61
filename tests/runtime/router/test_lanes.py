"""Compiled lanes write what Python would write, byte for byte, and leave to Python whatever is not plain."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.openai.answers import ChunkWriter, Envelope
from tandem_runtime.openai.backend import Lane
from tandem_runtime.router.flight import Flight
from tandem_runtime.router.lanes import LaneLibrary, Lanes, load_lanes

from tests.runtime.router.fake_pod import FakePod
from tests.runtime.router.harness import eventually, running_router
from tests.runtime.router.test_routing import expected_text

CHUNKS = ChunkWriter(Envelope(True, "chatcmpl-1", 1, "chat"), include_usage=True)
BEFORE, AFTER = CHUNKS.frame() or (b"", b"")


@pytest.fixture(scope="module")
def library() -> LaneLibrary:
    library = load_lanes()
    assert library is not None, "the development environment has a compiler"
    return library


@dataclass
class Stream:
    """A flight in the lanes, its client's socket and what the front was told."""

    lanes: Lanes
    name: str = "a"
    told: list[tuple[int, float, bytes]] = field(default_factory=list)

    def __enter__(self) -> Stream:
        self.server, self.client = socket.socketpair()
        self.client.setblocking(False)
        submit = wire.Submit(self.name, 0, [1], Sampling(max_tokens=1000), 1000)
        self.flight = Flight(submit, 0.0, 1.0, lane=self._lane)
        self.flight.link = SimpleNamespace(lanes=self.lanes)  # type: ignore[assignment]
        self.lanes.offer(self.flight)
        return self

    def __exit__(self, *_: object) -> None:
        self.lanes.leave(self.flight)
        self.server.close()
        self.client.close()

    def _lane(self) -> Lane:
        return Lane(self.server.fileno(), BEFORE, AFTER, lambda *what: self.told.append(what))

    def read(self) -> bytes:
        try:
            return self.client.recv(1 << 20)
        except BlockingIOError:
            return b""


def step(*deltas: wire.Delta) -> bytes:
    return wire.encode(wire.Step(list(deltas)))


def chunk(text: str) -> bytes:
    data = CHUNKS.text(text)
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


@given(st.lists(st.tuples(st.text(), st.lists(st.integers(0, 2**63 - 1), max_size=4)), max_size=8))
def test_any_text_is_written_as_python_writes_it_and_every_token_is_remembered(
    library: LaneLibrary, pieces: list[tuple[str, list[int]]]
) -> None:
    lanes = Lanes(library)
    with Stream(lanes) as stream:
        index, deltas = 0, []
        for text, ids in pieces:
            deltas.append(wire.Delta("a", 0, index, ids, text))
            index += len(ids)
        assert lanes.pass_on(step(*deltas)) == []
        assert stream.read() == b"".join(chunk(text) for text, _ in pieces)
        lanes.leave(stream.flight)
        assert stream.flight.emitted_ids == [token for _, ids in pieces for token in ids]
        [(tokens, last_at, unsent)] = stream.told
        assert (tokens, unsent, last_at > 0) == (index, b"", index > 0)


USAGE = wire.Usage(1, 1, 0, 0)


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (wire.Delta("a", 0, 1, [2], "x", "stop", USAGE), "the last one"),
        (wire.Delta("a", 0, 1, [2], "x", None, None, [-0.5]), "with log probabilities"),
        (wire.Delta("a", 0, 7, [2], "x"), "out of order"),
    ],
)
def test_what_is_not_plain_and_all_that_follows_it_is_left_to_python(
    library: LaneLibrary, odd: wire.Delta, why: str
) -> None:
    lanes = Lanes(library)
    with Stream(lanes) as stream, Stream(lanes, "b") as other:
        frame = step(
            wire.Delta("a", 0, 0, [1], "first"),
            odd,
            wire.Delta("a", 0, 2, [3], "later"),
            wire.Delta("b", 0, 0, [1], "other"),
            wire.Delta("unknown", 0, 0, [1], "whose"),
        )
        assert lanes.pass_on(frame) == [1, 2, 4], why
        assert (stream.read(), other.read()) == (chunk("first"), chunk("other"))


def test_a_delta_of_an_older_attempt_does_not_disturb_the_stream(library: LaneLibrary) -> None:
    lanes = Lanes(library)
    with Stream(lanes) as stream:
        stream.flight.attempt = 1
        assert lanes.pass_on(step(wire.Delta("a", 0, 0, [9], "old"), wire.Delta("a", 1, 0, [1], "new"))) == [0]
        assert stream.read() == chunk("new")


def test_a_socket_that_takes_no_more_sends_the_stream_back_to_python_without_losing_a_byte(
    library: LaneLibrary,
) -> None:
    lanes, sent, index = Lanes(library), b"", 0
    with Stream(lanes) as stream:
        stream.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while not stream.told:
            text = f"{index} " * 300
            assert lanes.pass_on(step(wire.Delta("a", 0, index, [index], text))) == []
            sent, index = sent + chunk(text), index + 1
        [(tokens, _, unsent)] = stream.told
        assert tokens == index
        assert unsent
        got = b""
        while part := stream.read():
            got += part
        assert got + unsent == sent
        assert lanes.pass_on(step(wire.Delta("a", 0, index, [1], "x"))) is None, "nobody is in the lanes any more"


def test_a_client_that_left_is_the_front_s_to_notice(library: LaneLibrary) -> None:
    lanes = Lanes(library)
    with Stream(lanes) as stream:
        stream.client.close()
        assert lanes.pass_on(step(wire.Delta("a", 0, 0, [1], "x"))) == []
        assert stream.told[0][2] == chunk("x"), "no signal, no error: the transport will meet it"


GOOD = step(wire.Delta("a", 0, 0, [1, 70_000], "text"), wire.Delta("b", 0, 0, [], "é" * 40))


@given(st.binary(max_size=200), st.integers(0, len(GOOD)), st.integers(0, 255))
def test_of_damaged_frames_nothing_is_written_but_deltas_that_are_whole(
    library: LaneLibrary, noise: bytes, place: int, value: int
) -> None:
    for frame in (noise, GOOD[:place], GOOD[:place] + noise, GOOD[:place] + bytes([value]) + GOOD[place + 1 :]):
        lanes = Lanes(library)
        with Stream(lanes) as stream:
            left, written = lanes.pass_on(frame), stream.read()
            try:
                message = wire.decode_from_pod(frame)
            except (msgspec.DecodeError, UnicodeDecodeError):
                message = None  # Python will end the connection
            if left is None:
                assert written == b""
            elif isinstance(message, wire.Step):
                taken = [delta.text for place, delta in enumerate(message.deltas) if place not in left]
                assert written == b"".join(chunk(text) for text in taken)
            else:
                assert message is None
                assert left, "so that Python looks at the frame"
                assert written in (b"", chunk("text"))


async def test_streams_take_the_lane_and_nothing_of_it_is_left_when_they_end() -> None:
    pod = FakePod("a", token_seconds=0.003)
    async with running_router(pod) as router:
        await eventually(lambda: router.app.backend.connections.lanes is not None)
        await router.stream_text(max_tokens=3)  # connections of the test's client stay
        before = len(os.listdir("/proc/self/fd"))
        [link] = router.app.backend.links.values()
        assert link.lanes is not None
        streams = [asyncio.create_task(router.stream_text(f"{number}", max_tokens=100)) for number in range(8)]
        await eventually(lambda: len(link.lanes or ()) == 8)
        for number, stream in enumerate(streams):
            assert await stream == expected_text(f"{number}", 100)
        assert len(link.lanes) == 0
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 16, 10.0), "8 connections, both ends"


async def test_without_a_compiler_python_writes_every_chunk() -> None:
    pod = FakePod("a", token_seconds=0.001)
    async with running_router(pod, lanes=False) as router:
        assert await router.stream_text("hello", max_tokens=50) == expected_text("hello", 50)
        assert [link.lanes for link in router.app.backend.links.values()] == [None]


async def test_a_client_that_pauses_gets_every_token_in_order() -> None:
    pod = FakePod("a", max_context_tokens=100_000)
    async with running_router(pod) as router:
        await eventually(lambda: router.app.backend.connections.lanes is not None)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", router.app.http_port))
        body = msgspec.json.encode({"model": "chat", "prompt": "hello", "max_tokens": 2500, "stream": True})
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        client.setblocking(False)
        [link] = router.app.backend.links.values()
        await eventually(lambda: len(link.lanes or ()) == 1)
        await eventually(lambda: len(link.lanes or ()) == 0, 20.0)  # it was stuck
        got, loop = b"", asyncio.get_running_loop()
        async with asyncio.timeout(20):
            while not got.endswith(b"0\r\n\r\n"):
                got += await loop.sock_recv(client, 1 << 16)
        client.close()
        events = whole(got.partition(b"\r\n\r\n")[2]).split(b"\n\n")
        assert events[-2:] == [b"data: [DONE]", b""]
        choices = [msgspec.json.decode(event.removeprefix(b"data: "))["choices"] for event in events[:-2]]
        assert "".join(choice[0]["text"] for choice in choices if choice) == expected_text("hello", 2500)


def whole(chunked: bytes) -> bytes:
    """The body of HTTP/1.1 chunks."""
    parts = []
    while chunked:
        size, _, chunked = chunked.partition(b"\r\n")
        parts.append(chunked[: int(size, 16)])
        chunked = chunked[int(size, 16) + 2 :]
    return b"".join(parts)
