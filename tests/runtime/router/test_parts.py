"""The router's small parts: frames, durations, histograms."""

from __future__ import annotations

import argparse
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts.durations import parse_duration
from tandem_runtime.contracts.framing import FrameError, pack
from tandem_runtime.openai.record import RequestRecord
from tandem_runtime.router.counters import TPOT_EDGES_SECONDS, TTFT_EDGES_SECONDS, Counters, Histogram
from tandem_runtime.router.frames import FrameParser


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=10), st.integers(1, 30))
def test_frames_come_out_whole_in_whatever_pieces_they_arrive(messages: list[bytes], piece_bytes: int) -> None:
    stream = b"".join(pack(message) for message in messages)
    parser = FrameParser()
    pieces = [stream[start : start + piece_bytes] for start in range(0, len(stream), piece_bytes)]
    assert [message for piece in pieces for message in parser.feed(piece)] == messages


@given(st.binary(max_size=64))
def test_bytes_that_are_no_frames_are_refused_or_waited_on_but_break_nothing(data: bytes) -> None:
    with suppress(FrameError):
        for message in FrameParser().feed(data):
            assert message


@pytest.mark.parametrize(
    ("text", "seconds"), [("120s", 120), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200), ("1.5s", 1.5), ("7", 7)]
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1d", "1s junk", "1,5s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_duration(text)


def test_histogram_edges_are_those_of_the_contract() -> None:
    assert TTFT_EDGES_SECONDS[0] == 0.001
    assert TTFT_EDGES_SECONDS[-1] <= 600 < TTFT_EDGES_SECONDS[-1] * 1.5
    assert TPOT_EDGES_SECONDS[0] == 0.0001
    assert TPOT_EDGES_SECONDS[-1] <= 10 < TPOT_EDGES_SECONDS[-1] * 1.5
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 3.0):
        histogram.add(value)
    assert histogram.counts == [2, 1, 1]


def test_each_request_counts_once_by_how_it_ended_and_one_refused_as_malformed_only_as_an_answer() -> None:
    counters = Counters()
    for status, reason in ((200, "stop"), (499, "client_gone"), (429, "queue_full"), (504, "timeout"), (503, "no_pod")):
        record = RequestRecord(id="x", path="/v1/completions", submit_id="x-1", prompt_tokens=3)
        record.end(status, reason)
        counters.count(record)
    malformed = RequestRecord(id="y", path="/v1/completions")
    malformed.end(400, "invalid_json")
    counters.count(malformed)
    assert (counters.arrivals, counters.prompt_tokens) == (5, 15)
    assert (counters.completed, counters.cancelled, counters.shed, counters.failed) == (1, 1, 2, 1)
    assert counters.answers["400", "invalid_json"] == 1
