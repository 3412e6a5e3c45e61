"""Pods log what they did for a request under its id and trace, and nothing that a client wrote."""

from __future__ import annotations

import pytest

from tests.runtime.server.pods import router, running_pod, submit

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_prefill_and_decode_log_one_line_each_under_the_routers_trace(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tandem.requests")
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        await client.answer(submit("a", "a secret prompt " * 8, 5, prefill.peer, traceparent=TRACE))
        await decode.idle()
    lines = {record.getMessage(): record.__dict__["fields"] for record in caplog.records}
    assert lines.keys() == {"decoded", "prefilled"}
    for fields in lines.values():
        assert (fields["request"], fields["trace_id"], fields["prompt_tokens"]) == ("a", TRACE[3:35], 128)
    assert (lines["decoded"]["output_tokens"], lines["decoded"]["reason"]) == (5, "length")
    assert lines["decoded"]["prefill_pod"] == "prefill-0"
    assert "secret" not in str(lines)
