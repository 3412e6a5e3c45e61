"""One request between front and backend: its events in, a whole answer or server-sent events out.

A streamed token goes from the pod's frame to the client's socket in one call: no queue, no task, no wait per token.
What the client does not take stays in its transport's buffer, up to a bound.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Final

from aiohttp import web

from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit
from tandem_runtime.openai.answers import DONE, ChunkWriter, Envelope, encode, usage_of, whole_answer
from tandem_runtime.openai.backend import Backend, Lane
from tandem_runtime.openai.errors import CLIENT_GONE_STATUS, error_of_failure
from tandem_runtime.openai.record import RequestRecord

SIZES: Final = [b"%x\r\n" % size for size in range(4096)]
"""How a chunk of HTTP/1.1 begins, by its size."""
UNREAD_BYTES: Final = 256 << 10
"""Of one stream: about 1,000 tokens beyond what the kernel holds. A thousand clients that stall are 256 MB."""


class SlowReader(ConnectionError):
    """The client left too much unread; its connection is broken, so that the answer cannot look complete."""


class Answer(ABC):
    """What both kinds have in common: the end, and the books. `take` is the backend's sink."""

    def __init__(self, record: RequestRecord) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.problem: Exception | None = None
        self._record = record
        self._over = False

    def take(self, event: Delta | Failed) -> None:
        """Nothing is taken after the end."""
        if self._over:
            return
        self._record.attempts = event.attempt + 1
        if isinstance(event, Failed):
            self._end(error_of_failure(event))
            return
        self._record.count(len(event.ids))
        if event.finish_reason is not None:
            self._record.pod_usage = event.usage
            self._record.end(200, event.finish_reason)
        try:
            self._write(event)
        except Exception as error:  # must not reach the pod's connection: others share it
            self._end(error)
            return
        if event.finish_reason is not None:
            self._end()

    @abstractmethod
    def _write(self, delta: Delta) -> None:
        """Of the last one the record is complete."""

    def _end(self, problem: Exception | None = None) -> None:
        self.problem, self._over = problem, True
        if not self.ended.done():
            self.ended.set_result(None)


class WholeAnswer(Answer):
    """Collects the text."""

    def __init__(self, record: RequestRecord) -> None:
        super().__init__(record)
        self.texts: list[str] = []

    def _write(self, delta: Delta) -> None:
        self.texts.append(delta.text)


class StreamedAnswer(Answer):
    """Writes once per delta. Until `attach`, what came is held back: the first event decides on the status."""

    def __init__(self, record: RequestRecord, chunks: ChunkWriter, unread_bytes: int = UNREAD_BYTES) -> None:
        super().__init__(record)
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._chunks = chunks
        self._unread_bytes = unread_bytes
        self._held = [chunks.opening()]
        self._transport: asyncio.Transport | None = None
        self._chunked = True
        self._socket = -1
        self._frame: tuple[bytes, bytes, int] | None = None
        """Around the text of a delta, the end of the chunk of HTTP/1.1 included; and the chunk's size without it."""

    def attach(self, transport: asyncio.Transport, chunked: bool) -> bytes:
        """What was held back, to be written first; from now on all goes to `transport`."""
        self._transport, self._chunked = transport, chunked
        if chunked and (frame := self._chunks.frame()) is not None:
            self._frame = frame[0], frame[1] + b"\r\n", len(frame[0]) + len(frame[1])
            self._socket = plain_socket(transport)
        return b"".join(self._held)

    def lane(self) -> Lane | None:
        """The backend's LaneSource. None while something is left to be written, and for what is no plain stream."""
        frame, transport = self._frame, self._transport
        if frame is None or transport is None or self._over or self._socket < 0:
            return None
        if transport.is_closing() or transport.get_write_buffer_size():
            return None
        return Lane(self._socket, frame[0], frame[1][:-2], self._took)

    def _took(self, tokens: int, last_at: float, unsent: bytes) -> None:
        record = self._record
        if tokens:
            record.last_token_seconds = last_at - record.started
            record.output_tokens += tokens
        if unsent and self._transport is not None and not self._transport.is_closing():
            self._transport.write(unsent)

    def take(self, event: Delta | Failed) -> None:
        """A delta amid a stream, by far the most frequent, takes the short way: one join, one write."""
        frame, transport = self._frame, self._transport
        if frame is None or self._over or event.__class__ is not Delta or event.finish_reason is not None:
            super().take(event)
            return
        self._record.count(len(event.ids))
        if not event.text:
            return
        try:
            text = encode(event.text)
        except Exception as error:  # must not reach the pod's connection: others share it
            self._end(error)
            return
        before, after, size = frame
        size += len(text)
        if transport is not None and self._writable(transport):
            transport.write(b"".join((SIZES[size] if size < len(SIZES) else b"%x\r\n" % size, before, text, after)))

    def _write(self, delta: Delta) -> None:
        data = self._chunks.piece(delta)
        if delta.finish_reason is not None:
            data += self._closing(delta.finish_reason)
        if self._transport is None:
            self._held.append(data)
            if not self.begun.done():
                self.begun.set_result(None)
        elif data:
            self._send(self._transport, data)

    def _closing(self, reason: str) -> bytes:
        record = self._record
        usage = usage_of(record.prompt_tokens, record.output_tokens, record.cached_tokens)
        return self._chunks.ending(reason, usage) + DONE

    def _send(self, transport: asyncio.Transport, data: bytes) -> None:
        if self._writable(transport):
            transport.write(b"".join((chunk_head(len(data)), data, b"\r\n")) if self._chunked else data)

    def _writable(self, transport: asyncio.Transport) -> bool:
        """Otherwise the answer is over: the client has left, or does not read."""
        if transport.is_closing():
            self._end(ConnectionResetError("the client left"))
            return False
        if (unread := transport.get_write_buffer_size()) <= self._unread_bytes:
            return True
        message = f"the client left {unread} bytes unread; at most {self._unread_bytes} are kept for it"
        self._record.end(CLIENT_GONE_STATUS, "slow_reader", message)
        self._end(SlowReader(message))
        transport.abort()
        return False

    def _end(self, problem: Exception | None = None) -> None:
        super()._end(problem)
        if not self.begun.done():
            self.begun.set_result(None)


def plain_socket(transport: asyncio.Transport) -> int:
    """Its descriptor; -1 where bytes do not go to a socket as they are."""
    connection = transport.get_extra_info("socket")
    encrypted = transport.get_extra_info("sslcontext") is not None
    return -1 if connection is None or encrypted else int(connection.fileno())


def chunk_head(size: int) -> bytes:
    """Of a chunk of HTTP/1.1."""
    return SIZES[size] if size < len(SIZES) else b"%x\r\n" % size


async def answer_whole(backend: Backend, submit: Submit, envelope: Envelope, record: RequestRecord) -> web.Response:
    """Raises ApiError when the request fails, however far it came."""
    answer = WholeAnswer(record)
    try:
        backend.submit(submit, answer.take)
        await answer.ended
    finally:
        backend.cancel(submit.id)
    if answer.problem is not None:
        raise answer.problem
    usage = usage_of(record.prompt_tokens, record.output_tokens, record.cached_tokens)
    text = "".join(answer.texts)
    return web.Response(body=whole_answer(envelope, text, record.reason, usage), content_type="application/json")


async def answer_stream(
    backend: Backend,
    submit: Submit,
    chunks: ChunkWriter,
    record: RequestRecord,
    response: web.StreamResponse,
    request: web.Request,
) -> None:
    """Raises ApiError; as long as `response` is not prepared it may still get a status. ConnectionError: no client."""
    answer = StreamedAnswer(record, chunks)
    try:
        backend.submit(submit, answer.take, answer.lane)
        await answer.begun
        if answer.problem is not None and not record.output_tokens:
            raise answer.problem
        chunked = request.version >= (1, 1)
        if chunked:
            response.enable_chunked_encoding()
        await response.prepare(request)
        if request.transport is None:
            raise ConnectionResetError("the client left")
        await response.write(answer.attach(request.transport, chunked))
        await answer.ended
    finally:
        backend.cancel(submit.id)
    if answer.problem is not None:
        raise answer.problem
    await response.write_eof()
