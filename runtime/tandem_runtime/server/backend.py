"""The OpenAI front's backend in a `both` pod: the engine of the same process instead of queue and proxy."""

from __future__ import annotations

from tandem_runtime.contracts.pod_protocol import Submit
from tandem_runtime.openai.backend import LaneSource, Sink
from tandem_runtime.server.pod import Pod
from tandem_runtime.server.session import Session


class LocalBackend:
    """Use on the pod's event loop."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._sessions: dict[str, Session] = {}

    @property
    def max_context_tokens(self) -> int | None:
        """Prompt and output together."""
        return self._pod.engine.context_tokens

    def submit(self, request: Submit, sink: Sink, lane: LaneSource | None = None) -> None:
        """Deltas in order; the last event has a finish_reason or is a Failed. All go to the sink."""
        session = self._pod.submit(request, sink, movable=False)
        if session is not None:
            self._sessions[request.id] = session

    def cancel(self, request_id: str) -> None:
        """Nobody reads the answer any more, or it is complete. Idempotent."""
        session = self._sessions.pop(request_id, None)
        if session is not None:
            session.drop()
