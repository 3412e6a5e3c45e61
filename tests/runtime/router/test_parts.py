"""The router's small parts: frames, durations, counters, what prefill pods have to do."""

from __future__ import annotations

import argparse
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts.classes import Classes
from tandem_runtime.contracts.coefficients import read_coefficients
from tandem_runtime.contracts.durations import parse_duration
from tandem_runtime.contracts.framing import FrameError, pack
from tandem_runtime.contracts.goodput import SloClass
from tandem_runtime.openai.record import RequestRecord
from tandem_runtime.policy.fleet import Reservation
from tandem_runtime.policy.pods import PodSnapshot
from tandem_runtime.policy.queue import WaitingQueue
from tandem_runtime.policy.waiting import Waiting
from tandem_runtime.router.backlog import next_tokens
from tandem_runtime.router.counters import Counters
from tandem_runtime.router.frames import FrameParser
from tandem_runtime.router.prefilling import Prefilling

SLO = SloClass(name="chat", ttft_base_s=1.0, tpot_s=0.05)


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


def test_each_request_counts_once_by_how_it_ended_and_one_refused_before_it_asked_for_a_pod_only_as_an_answer() -> None:
    counters = Counters(Classes([SLO]))
    statuses = ((200, "stop"), (499, "client_gone"), (429, "queue_full"), (504, "timeout"), (503, "no_pod"), (400, "x"))
    for index, (status, reason) in enumerate(statuses):
        record = RequestRecord("x", "/v1/completions", f"x-{index}", request_class="chat", prompt_tokens=3)
        counters.arrive(record.submit_id, SLO, 3)
        record.count(1)
        record.end(status, reason)
        counters.count(record)
        assert record.verdict == {200: "met", 499: "out", 400: "out"}.get(status, "missed")
    malformed = RequestRecord(id="y", path="/v1/completions")
    malformed.end(400, "invalid_json")
    counters.count(malformed)
    totals = counters.totals["chat"]
    assert (totals.arrivals, totals.prompt_tokens, totals.prompt_tokens_squared) == (6, 18, 54)
    ends = (totals.met, totals.missed, totals.shed, totals.failed, totals.cancelled, totals.refused)
    assert ends == (1, 0, 2, 1, 1, 1)
    assert totals.completed == 1
    assert counters.answers["400", "invalid_json", ""] == 1


def test_an_answer_is_expected_to_be_as_long_as_the_recent_ones_of_its_class_and_never_longer_than_asked() -> None:
    counters = Counters(Classes([SLO]))
    assert counters.expected_output_tokens("chat", 100) == 0
    for index in range(200):
        record = RequestRecord("x", "/", f"x-{index}", request_class="chat", output_tokens=40 if index < 100 else 80)
        counters.arrive(record.submit_id, SLO, 1)
        record.end(200, "stop")
        counters.count(record)
    assert counters.expected_output_tokens("chat", 100) in (79, 80)
    assert counters.expected_output_tokens("chat", 16) == 16
    assert counters.expected_output_tokens("other", 16) == 0


def test_counts_survive_a_change_of_the_classes() -> None:
    counters = Counters(Classes([SLO]))
    counters.arrive("a", SLO, 1)
    counters.set_classes(Classes([SloClass(name="batch", ttft_base_s=60, tpot_s=1)]))
    assert counters.totals["chat"].arrivals == 1
    assert counters.totals["batch"].arrivals == 0


def test_a_prefill_pod_is_busy_for_what_it_was_sent_and_a_late_prompt_does_not_make_it_free() -> None:
    known = read_coefficients("h100-sxm")
    pod = PodSnapshot("p", "prefill", "r", "p-1", True, coefficients=known)
    each_seconds = known.prefill_seconds(4000)
    prompts = Prefilling()
    assert prompts.left_seconds(5.0) == 0
    for name in "abc":
        prompts.start(name, 4000, pod, 5.0)
    assert prompts.tokens == 12_000
    assert prompts.left_seconds(5.0) == pytest.approx(3 * each_seconds)
    assert prompts.left_seconds(5.0 + each_seconds / 2) == pytest.approx(2.5 * each_seconds)
    assert prompts.left_seconds(60.0) == pytest.approx(2 * each_seconds), "the other two have not begun"
    prompts.end("a", 60.0)
    prompts.end("a", 60.0)
    assert prompts.left_seconds(60.0) == pytest.approx(2 * each_seconds)
    prompts.clear()
    assert (prompts.tokens, prompts.left_seconds(60.0)) == (0, 0)


def test_pods_are_told_what_the_request_needs_that_a_pod_is_kept_for() -> None:
    queue = WaitingQueue()
    queue.add(Waiting("late", 0.0, 600.0, 9000, objective_at=1.0), 0.0)
    queue.add(Waiting("in time", 40.0, 600.0, 1000, objective_at=90.0), 40.0)
    queue.park("late", 9100, 40.0)
    queue.park("in time", 1100, 40.0)
    kept = Reservation("d-1", "late", is_late=True, since=40.0)
    assert next_tokens(queue, kept, 60.0) == 9100, "else another router is given the room that it waits for"
    queue.late_was_kept_for(20.0, 60.0)
    assert next_tokens(queue, None, 60.0) == 1100
    queue.remove("late")
    assert next_tokens(queue, kept, 60.0) == 1100
