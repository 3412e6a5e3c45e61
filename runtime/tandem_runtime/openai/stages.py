"""The seam for what looks at requests on their way in and at answers on their way out; access is the first stage.

Stages know neither the HTTP server nor pods: a request is headers, a record and a Submit, an answer is Deltas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit
from tandem_runtime.openai.backend import Backend, LaneSource, Sink
from tandem_runtime.openai.record import RequestRecord


@dataclass(eq=False, slots=True)
class Passage:
    """One request on its way through the stages."""

    headers: Mapping[str, str]
    """Of the client; names compare without case."""
    record: RequestRecord
    default_class: str = ""
    """Where the request names none; empty: the deployment's default."""
    notes: dict[Stage, Any] = field(default_factory=dict)
    """What a stage remembers of the request until it leaves."""


class Stage:
    """Does nothing; a stage overrides what it needs."""

    def enter(self, passage: Passage) -> None:
        """The headers are there, the body is not: who is it, and may it come in at all? Raises ApiError."""

    def admit(self, passage: Passage, submit: Submit) -> Submit:
        """The prompt is counted, the queue has not heard of it. Returns what goes on. Raises ApiError."""
        return submit

    def answer(self, passage: Passage, delta: Delta) -> Delta | Failed:
        """A piece of the answer before it is written; Failed ends it. Called for every token, so override it only
        where needed. Must not raise."""
        return delta

    def leave(self, passage: Passage) -> None:
        """Once for each request that entered, also when `enter` raised; the record tells how it ended. Must not
        raise."""


class Stages:
    """In this order on the way in, the last one first on the way out."""

    def __init__(self, stages: Sequence[Stage] = ()) -> None:
        self.all = tuple(stages)
        self.answering = tuple(stage for stage in reversed(self.all) if type(stage).answer is not Stage.answer)
        """Those that look at answers; usually none, and then answers pay nothing."""


class Visit:
    """One request in the stages; `leave` it in any case."""

    __slots__ = ("_entered", "_stages", "passage")

    def __init__(self, stages: Stages, passage: Passage) -> None:
        self.passage = passage
        self._stages = stages
        self._entered = 0

    def enter(self) -> None:
        """Raises ApiError."""
        for stage in self._stages.all:
            self._entered += 1
            stage.enter(self.passage)

    def admit(self, submit: Submit) -> Submit:
        """Raises ApiError."""
        for stage in self._stages.all:
            submit = stage.admit(self.passage, submit)
        return submit

    def over(self, backend: Backend) -> Backend:
        """The backend as this request sees it: its answers go through the stages, if one of them looks at answers."""
        return StagedBackend(backend, self._stages.answering, self.passage) if self._stages.answering else backend

    def leave(self) -> None:
        """Idempotent."""
        entered, self._entered = self._entered, 0
        for stage in reversed(self._stages.all[:entered]):
            stage.leave(self.passage)


class StagedBackend:
    """A Backend whose answers pass the stages. What follows a Failed of theirs is dropped."""

    def __init__(self, backend: Backend, stages: Sequence[Stage], passage: Passage) -> None:
        self._backend, self._stages, self._passage = backend, stages, passage

    @property
    def max_context_tokens(self) -> int | None:
        """As below."""
        return self._backend.max_context_tokens

    def submit(self, request: Submit, sink: Sink, lane: LaneSource | None = None) -> None:
        """As below, but for what the stages make of the answer; they see all of it, so there is no lane."""
        ended = False

        def take(event: Delta | Failed) -> None:
            nonlocal ended
            if ended:
                return
            for stage in self._stages:
                if isinstance(event, Failed):
                    break
                event = stage.answer(self._passage, event)
            ended = isinstance(event, Failed)
            sink(event)

        self._backend.submit(request, take)

    def cancel(self, request_id: str) -> None:
        """As below."""
        self._backend.cancel(request_id)


NO_STAGES: Final = Stages()
