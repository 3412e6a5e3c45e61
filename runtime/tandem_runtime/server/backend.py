"""The OpenAI front's backend in a `both` pod: the engine of the same process instead of queue and proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit
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

    async def submit(self, request: Submit) -> AsyncIterator[Delta | Failed]:
        """Deltas in order; the last item has a finish_reason or is a Failed."""
        replies: asyncio.Queue[Delta | Failed] = asyncio.Queue()
        session = self._pod.submit(request, replies.put_nowait)
        if session is not None:
            self._sessions[request.id] = session
        try:
            while True:
                reply = await replies.get()
                yield reply
                if isinstance(reply, Failed) or reply.finish_reason is not None:
                    return
        finally:
            if session is not None:
                session.drop()
                if self._sessions.get(request.id) is session:
                    del self._sessions[request.id]

    def cancel(self, request_id: str) -> None:
        """Nobody reads the answer any more. Idempotent."""
        session = self._sessions.get(request_id)
        if session is not None:
            session.cancel()
