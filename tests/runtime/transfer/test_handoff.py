"""A prefill pod and a decode pod over loopback."""

from __future__ import annotations

from tests.runtime.server.pods import router, running_pod, submit

PROMPT = "the quick brown fox jumps over the lazy dog " * 20


async def test_decode_goes_on_from_pages_that_really_crossed_and_computes_no_prompt_token() -> None:
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as decode,
        router(decode.internal_port) as client,
    ):
        ids, text, last = await client.answer(submit("a", PROMPT, 40, prefill.peer))
        assert len(ids) == 40
        assert text == bytes(ids).decode()
        assert last.usage is not None
        assert last.usage.prefilled_here == 0
        assert last.usage.kv_bytes_received > 0
        await decode.idle()
        await prefill.idle()
        assert prefill.pod.sent.tx_bytes == decode.pod.received.rx_bytes == last.usage.kv_bytes_received
        assert decode.pod.engine.engine.scheduler.counters.prompt_tokens == 0
        assert prefill.pod.engine.engine.scheduler.counters.prompt_tokens == len(PROMPT)

        alone, _, last = await client.answer(submit("b", PROMPT, 40))
        assert alone == ids
        assert last.usage is not None
        assert last.usage.prefilled_here == len(PROMPT)
