"""One request between front and backend: deltas in, a whole answer or server-sent events out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from aiohttp import web

from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit
from tandem_runtime.openai.answers import DONE, ChunkWriter, Envelope, usage_of, whole_answer
from tandem_runtime.openai.backend import Backend
from tandem_runtime.openai.errors import ApiError, error_of_failure
from tandem_runtime.openai.record import RequestRecord


async def answer_whole(backend: Backend, submit: Submit, envelope: Envelope, record: RequestRecord) -> web.Response:
    """Raises ApiError when the request fails, however far it came."""
    texts: list[str] = []
    reason = ""
    async with aclosing(read_deltas(backend, submit, record)) as deltas:
        async for delta in deltas:
            record.count(len(delta.ids))
            texts.append(delta.text)
            reason = delta.finish_reason or reason
    record.end(200, reason)
    usage = usage_of(record.prompt_tokens, record.output_tokens)
    return web.Response(body=whole_answer(envelope, "".join(texts), reason, usage), content_type="application/json")


async def answer_stream(
    backend: Backend,
    submit: Submit,
    chunks: ChunkWriter,
    record: RequestRecord,
    response: web.StreamResponse,
    request: web.Request,
) -> None:
    """Writes once per delta. Raises ApiError; as long as `response` is not prepared it may still get a status."""
    async with aclosing(read_deltas(backend, submit, record)) as deltas:
        async for delta in deltas:
            data = chunks.text(delta.text)
            if not response.prepared:
                await response.prepare(request)
                data = chunks.opening() + data
            record.count(len(delta.ids))
            if delta.finish_reason is not None:
                data += chunks.ending(delta.finish_reason, usage_of(record.prompt_tokens, record.output_tokens)) + DONE
                record.end(200, delta.finish_reason)
            if data:
                await response.write(data)
    await response.write_eof()


async def read_deltas(backend: Backend, submit: Submit, record: RequestRecord) -> AsyncGenerator[Delta, None]:
    """Up to the one with a finish reason. Raises ApiError; cancels the request below when nobody reads on."""
    events: AsyncIterator[Delta | Failed] = backend.submit(submit)
    ended = False
    try:
        async for event in events:
            record.attempts = event.attempt + 1
            ended = isinstance(event, Failed) or event.finish_reason is not None
            if isinstance(event, Failed):
                raise error_of_failure(event)
            record.pod_usage = event.usage or record.pod_usage
            yield event
            if ended:
                return
        ended = True
        raise ApiError(500, "the answer ended without a finish reason", "server_error", code="internal_error")
    finally:
        if not ended:
            backend.cancel(submit.id)
        if isinstance(events, AsyncGenerator):
            await events.aclose()
