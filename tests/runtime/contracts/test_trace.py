"""traceparent: what is valid goes on, what is not begins a new trace."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts.trace import TraceContext, new_trace, read_trace, trace_id_of

VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_valid_header_keeps_its_trace_and_gets_a_span_of_our_own() -> None:
    given_trace = read_trace(VALID)
    assert given_trace == TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
    assert given_trace.header() == VALID
    child = given_trace.child(os.urandom)
    assert child.trace_id == given_trace.trace_id
    assert child.span_id != given_trace.span_id


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        VALID.upper(),
        VALID + "-more",
        VALID.replace("00-", "ff-"),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        "99" + VALID[2:] + "-" + "x" * 999,
    ],
)
def test_what_is_not_valid_is_no_trace(header: str) -> None:
    assert read_trace(header) is None
    assert trace_id_of(header) == ""


def test_a_later_version_may_carry_more_and_only_the_sampled_flag_goes_on() -> None:
    assert read_trace("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-extra") == read_trace(VALID)


@given(st.binary(min_size=24, max_size=24))
def test_whatever_chance_brings_a_new_trace_is_valid(drawn: bytes) -> None:
    trace = new_trace(lambda size: drawn[:size])
    assert read_trace(trace.header()) == trace
