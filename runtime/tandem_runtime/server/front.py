"""The OpenAI API of a `both` pod, over the engine of the same process."""

from __future__ import annotations

from functools import partial

from tandem_runtime.openai.front import Front, FrontSettings
from tandem_runtime.openai.http_port import HttpPort
from tandem_runtime.openai.spans import trace_request
from tandem_runtime.server.backend import LocalBackend
from tandem_runtime.server.pod import Pod


class FrontServer:
    """Listens after `start`."""

    def __init__(self, pod: Pod, model_name: str) -> None:
        observe = partial(trace_request, pod.requests.tracer)
        self.front = Front(FrontSettings(model_name=model_name), pod.tokenizer, LocalBackend(pod), observe)
        self._port = HttpPort(self.front.application())

    async def start(self, bind: str, port: int) -> int:
        """The port that it listens on."""
        return await self._port.start(bind, port)

    def drain(self) -> None:
        """Answers ask clients to leave."""
        self.front.draining = True

    async def stop(self) -> None:
        """Waits for answers that are being written, then closes."""
        await self._port.close()
