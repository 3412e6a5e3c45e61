"""Answers beyond the plain one: several choices of one request (n), and log probabilities.

Each choice is a request of its own for queue, pods and goodput, with a seed of its own; together they are one answer,
which is complete only when all of them are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from aiohttp import web

from tandem_runtime.contracts.pod_protocol import Delta, Submit
from tandem_runtime.contracts.sampling import choice_seed
from tandem_runtime.openai.answers import DONE, ChunkWriter, Envelope, encode, usage_of
from tandem_runtime.openai.backend import Backend
from tandem_runtime.openai.exchange import Answer, StreamedAnswer, WholeAnswer
from tandem_runtime.openai.logprobs import LogprobView, join
from tandem_runtime.openai.record import RequestRecord
from tandem_runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Choices:
    """What a request asks for. `alternatives` None: no log probabilities."""

    count: int
    alternatives: int | None
    envelope: Envelope
    tokenizer: Tokenizer
    include_usage: bool = False

    def view(self) -> LogprobView | None:
        """For one choice."""
        if self.alternatives is None:
            return None
        return LogprobView(self.tokenizer, self.envelope.chat, self.alternatives)

    def split(self, submit: Submit, record: RequestRecord) -> list[tuple[Submit, RequestRecord]]:
        """The first choice is the request itself, so n changes nothing about it; the others go into record.choices."""
        parts = [(submit, record)]
        for number in range(1, self.count):
            part = f"{submit.id}.{number}"
            sampling = msgspec.structs.replace(submit.sampling, seed=choice_seed(submit.sampling.seed, number))
            more = replace(record, submit_id=part, choice=number, details={}, choices=[])
            record.choices.append(more)
            parts.append((msgspec.structs.replace(submit, id=part, sampling=sampling), more))
        return parts


async def answer_choices(
    backend: Backend,
    submit: Submit,
    choices: Choices,
    record: RequestRecord,
    response: web.StreamResponse,
    request: web.Request,
) -> web.StreamResponse:
    """Raises ApiError when one choice fails; the others are given up then."""
    parts = choices.split(submit, record)
    if not record.stream:
        return await _answer_whole(backend, parts, choices, record)
    await _answer_stream(backend, parts, choices, record, response, request)
    return response


async def _answer_whole(
    backend: Backend, parts: list[tuple[Submit, RequestRecord]], choices: Choices, record: RequestRecord
) -> web.Response:
    answers = [WholeChoice(each, choices.view()) for _, each in parts]
    try:
        for (submit, _), answer in zip(parts, answers, strict=True):
            backend.submit(submit, answer.take)
        await _until_ended(answers)
    finally:
        for submit, _ in parts:
            backend.cancel(submit.id)
    chat = choices.envelope.chat
    shown = [answer.choice(index, chat) for index, answer in enumerate(answers)]
    body = {**choices.envelope.head(streaming=False), "choices": shown, "usage": usage_of_all(record)}
    return web.Response(body=encode(body), content_type="application/json")


async def _answer_stream(
    backend: Backend,
    parts: list[tuple[Submit, RequestRecord]],
    choices: Choices,
    record: RequestRecord,
    response: web.StreamResponse,
    request: web.Request,
) -> None:
    """As long as `response` is not prepared it may still get a status: the first event of any choice decides."""
    answers: list[StreamedChoice] = []
    for index, (_, each) in enumerate(parts):
        chunks = ChoiceWriter(choices.envelope, choices.include_usage, index, choices.view())
        answers.append(StreamedChoice(each, chunks, record, answers))
    try:
        for (submit, _), answer in zip(parts, answers, strict=True):
            backend.submit(submit, answer.take)
        await asyncio.wait([answer.begun for answer in answers], return_when=asyncio.FIRST_COMPLETED)
        if not record.all_output_tokens:
            _raise_problem(answers)
        chunked = request.version >= (1, 1)
        if chunked:
            response.enable_chunked_encoding()
        await response.prepare(request)
        if request.transport is None:
            raise ConnectionResetError("the client left")
        for answer in answers:
            if held := answer.attach(request.transport, chunked):
                await response.write(held)
        await _until_ended(answers)
    finally:
        for submit, _ in parts:
            backend.cancel(submit.id)
    await response.write_eof()


async def _until_ended(answers: Sequence[Answer]) -> None:
    """All, or the first that failed. Raises what it failed with."""
    left = [answer.ended for answer in answers]
    while left:
        await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        _raise_problem(answers)
        left = [ended for ended in left if not ended.done()]


def _raise_problem(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer.problem is not None:
            raise answer.problem


def usage_of_all(record: RequestRecord) -> dict[str, Any]:
    """The prompt counts once, as it was sent once."""
    return usage_of(record.prompt_tokens, record.all_output_tokens, record.cached_tokens)


class WholeChoice(WholeAnswer):
    """Collects text and log probabilities."""

    def __init__(self, record: RequestRecord, view: LogprobView | None) -> None:
        super().__init__(record)
        self._view = view
        self._logprobs: list[dict[str, Any]] = []

    def _write(self, delta: Delta) -> None:
        super()._write(delta)
        if self._view is not None and delta.ids:
            self._logprobs.append(self._view.show(delta))

    def choice(self, index: int, chat: bool) -> dict[str, Any]:
        """The entry of `choices`."""
        text = "".join(self.texts)
        logprobs = None if self._view is None else join(self._logprobs, chat)
        answer: dict[str, Any] = {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {
            "index": index,
            **(answer if chat else {"text": text}),
            "logprobs": logprobs,
            "finish_reason": self._record.reason,
        }


class ChoiceWriter(ChunkWriter):
    """Chunks of one choice, with log probabilities where they are wanted."""

    def __init__(self, envelope: Envelope, include_usage: bool, index: int, view: LogprobView | None) -> None:
        super().__init__(envelope, include_usage, index)
        self._index = index
        self._view = view

    def frame(self) -> tuple[bytes, bytes] | None:
        """Log probabilities differ."""
        return super().frame() if self._view is None else None

    def piece(self, delta: Delta) -> bytes:
        """New tokens have a chunk even while their text is held back: their log probabilities are known."""
        if self._view is None or not delta.ids:
            return super().piece(delta)
        text: dict[str, Any] = {"delta": {"content": delta.text}} if self._chat else {"text": delta.text}
        choice = {"index": self._index, **text, "logprobs": self._view.show(delta), "finish_reason": None}
        return self._head + b',"choices":[' + encode(choice) + b"]" + self._tail


class StreamedChoice(StreamedAnswer):
    """One of `siblings` on one connection; the last to end closes the stream."""

    def __init__(
        self, record: RequestRecord, chunks: ChoiceWriter, whole: RequestRecord, siblings: Sequence[StreamedAnswer]
    ) -> None:
        super().__init__(record, chunks)
        self._whole = whole
        self._siblings = siblings

    def _closing(self, reason: str) -> bytes:
        finish = self._chunks.finish(reason)
        if any(answer is not self and not answer.ended.done() for answer in self._siblings):
            return finish
        return finish + self._chunks.totals(usage_of_all(self._whole)) + DONE
