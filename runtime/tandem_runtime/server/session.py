"""One request of a router (or of the local front) on its way through the engine: events in, Delta and Failed out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.pod_protocol import Delta, Failed, Reason, Submit, Usage
from tandem_runtime.contracts.sampling import Alternatives, sampling_complaint
from tandem_runtime.engine.client import Hurry
from tandem_runtime.engine.events import Broken, Event, Finished, Output, RemoteAbandoned, Reserved
from tandem_runtime.server.request_log import log_request
from tandem_runtime.server.text_stream import TextStream
from tandem_runtime.transfer.pull import Pull

if TYPE_CHECKING:
    from tandem_runtime.server.pod import Pod

Reply = Callable[[Delta | Failed], None]


class Session:
    """`reply` gets one Delta per step that brought tokens; the last message has a finish_reason or is a Failed."""

    def __init__(self, pod: Pod, submit: Submit, reply: Reply) -> None:
        self.submit = submit
        self.ended = False
        self.movable = True
        """A router asked for it, and can go on elsewhere."""
        self._pod = pod
        self._reply = reply
        self._text = TextStream(pod.tokenizer, submit.prompt_ids, submit.emitted_ids, submit.stop)
        self._index = len(submit.emitted_ids)
        self._ids: list[int] = []
        self._words: list[str] = []
        self._logprobs: list[float] = []
        self._alternatives: list[Alternatives] = []
        self._origin = (0, 0, 0)
        self._queued_seconds = 0.0
        self._deadline = pod.clock() + submit.remaining_ms / 1000
        self._handle = 0
        self._promised_tokens = 0
        remote = submit.prefill_peer is not None
        self._course = pod.requests.begin(submit.traceparent, len(submit.prompt_ids), pod.clock(), remote)

    def start(self) -> None:
        """Hands the request to the engine."""
        submit = self.submit
        if self._text.stopped:
            self._end("stop")
            return
        self._promise(submit.kv_tokens())
        self._handle = self._pod.engine.open(
            self,
            submit.prompt_ids,
            submit.emitted_ids,
            submit.sampling,
            submit.remaining_ms / 1000,
            remote=submit.prefill_peer is not None,
            salt=submit.tenant_salt,
            hurry=hurry_of(submit),
        )

    def on_event(self, event: Event) -> None:
        """Called by the engine's client, in order."""
        if self.ended:
            return
        if self._promised_tokens:
            self._promise(0)  # from now on the engine's own figures contain it
        match event:
            case Output():
                self._take(event)
            case Reserved(pages=pages, have_pages=have_pages):
                self._fetch(pages, have_pages)
            case RemoteAbandoned():
                self._pod.receiver.abandon(self._handle, "late")
            case Finished(reason=reason):
                self._end(reason)
            case Broken(reason=reason, message=message, retryable=retryable):
                self.fail(reason, message, retryable)

    def flush(self) -> None:
        """Sends what this step brought."""
        if not self.ended and self._ids:
            self._count()
            self._send(None)

    def _count(self) -> None:
        if self._ids:
            self._pod.requests.emitted(self._course, len(self._ids), self._queued_seconds, self._pod.clock())

    def cancel(self) -> None:
        """The router asked for it. Idempotent."""
        if not self.ended:
            self._pod.cancelled += 1
            self._end("cancelled")

    def fail(self, reason: Reason, message: str, retryable: bool) -> None:
        """Ends with an error."""
        if not self.ended:
            self._leave(reason)
            self._reply(Failed(self.submit.id, self.submit.attempt, reason.value, message, retryable))

    def drop(self) -> None:
        """Nobody listens any more."""
        if not self.ended:
            self._pod.cancelled += 1
            self._leave("cancelled")

    def _take(self, output: Output) -> None:
        cached_tokens = min(output.cached_tokens, len(self.submit.prompt_ids))
        self._origin = (output.prefilled_here, output.kv_bytes_received, cached_tokens)
        self._queued_seconds = output.queued_seconds
        if not self._ids:
            self._pod.touched.append(self)
        others = output.alternatives or [[] for _ in output.ids]
        for token, logprob, alternatives in zip(output.ids, output.logprobs, others, strict=True):
            self._ids.append(token)
            self._alternatives.append(alternatives)
            self._logprobs.append(logprob)
            if token not in self.submit.sampling.stop_token_ids:  # like the model's own end, it has no text
                self._words.append(self._text.push(token))
            if self._text.stopped:
                self._end("stop")
                return

    def _end(self, reason: str) -> None:
        if reason != "cancelled":
            self._words.append(self._text.flush())
            if self._text.stopped:
                reason = "stop"
        self._count()
        self._leave(reason)
        self._send(reason)

    def _promise(self, tokens: int) -> None:
        self._pod.promised_tokens += tokens - self._promised_tokens
        self._promised_tokens = tokens

    def _leave(self, reason: str) -> None:
        self.ended = True
        self._promise(0)
        now = self._pod.clock()
        self._pod.requests.end(self._course, reason, now)
        log_request(self.submit, self._course, reason, now)
        self._pod.receiver.abandon(self._handle)
        self._pod.engine.close(self._handle)
        self._pod.session_ended(self)

    def _send(self, finish_reason: str | None) -> None:
        submit = self.submit
        usage = None
        if finish_reason is not None:
            usage = Usage(len(submit.prompt_ids), self._index + len(self._ids), *self._origin)
        self._reply(
            Delta(
                id=submit.id,
                attempt=submit.attempt,
                output_index=self._index,
                ids=self._ids,
                text="".join(self._words),
                finish_reason=finish_reason,
                usage=usage,
                logprobs=self._logprobs if submit.want_logprobs else None,
                alternatives=self._alternatives if submit.want_logprobs > 1 else None,
            )
        )
        self._index += len(self._ids)
        self._ids, self._words, self._logprobs, self._alternatives = [], [], [], []

    def _fetch(self, pages: list[tuple[int, int]], have_pages: int) -> None:
        submit, peer = self.submit, self.submit.prefill_peer
        if peer is None:
            return
        remaining_ms = max(1, int((self._deadline - self._pod.clock()) * 1000))
        objective_ms = submit.objective_ms
        request = kv.Prefill(
            req=f"{self._handle}:{submit.id}",
            attempt=0,
            have_pages=have_pages,
            tokens=[*submit.prompt_ids, *submit.emitted_ids],
            sampling=submit.sampling,
            output_index=len(submit.emitted_ids),
            remaining_ms=remaining_ms,
            salt=submit.tenant_salt,
            prompt_tokens=len(submit.prompt_ids),
            priority=submit.priority,
            objective_ms=None if objective_ms is None else max(0, objective_ms - (submit.remaining_ms - remaining_ms)),
            traceparent=submit.traceparent,
        )
        self._pod.receiver.fetch(Pull(self._handle, request, peer, pages, self._deadline))


def hurry_of(submit: Submit) -> Hurry:
    """What was promised to it, in seconds."""
    objective, tpot = submit.objective_ms, submit.tpot_ms
    return Hurry(
        submit.priority,
        math.inf if objective is None else objective / 1000,
        math.inf if tpot is None else tpot / 1000,
    )


def complaint(submit: Submit, vocabulary: int) -> str:
    """Why no engine could take this request; empty when it is in order. The engine checks lengths."""
    if not submit.prompt_ids:
        return "the prompt has no tokens"
    for ids in (submit.prompt_ids, submit.emitted_ids):
        if ids and not 0 <= min(ids) <= max(ids) < vocabulary:
            wrong = next(token for token in ids if not 0 <= token < vocabulary)
            return f"token id {wrong} is not in the vocabulary of {vocabulary} tokens"
    if submit.remaining_ms < 1:
        return f"remaining_ms is {submit.remaining_ms}; at least 1 is needed"
    return sampling_complaint(submit.sampling, vocabulary)
