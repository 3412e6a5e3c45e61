"""The OpenAI API of a `both` pod, over the engine of the same process."""

from __future__ import annotations

from aiohttp import web

from tandem_runtime.openai.front import Front, FrontSettings
from tandem_runtime.server.backend import LocalBackend
from tandem_runtime.server.pod import Pod

CLOSE_SECONDS = 5.0
"""For answers that are complete but not read yet."""


class FrontServer:
    """Listens after `start`."""

    def __init__(self, pod: Pod, model_name: str) -> None:
        self.front = Front(FrontSettings(model_name=model_name), pod.tokenizer, LocalBackend(pod))
        self._runner = web.AppRunner(self.front.application(), handler_cancellation=True, access_log=None)

    async def start(self, bind: str, port: int) -> int:
        """The port that it listens on."""
        await self._runner.setup()
        await web.TCPSite(self._runner, bind, port, shutdown_timeout=CLOSE_SECONDS).start()
        address: tuple[str, int] = self._runner.addresses[0]
        return address[1]

    def drain(self) -> None:
        """Answers ask clients to leave."""
        self.front.draining = True

    async def stop(self) -> None:
        """Waits for answers that are being written, then closes."""
        await self._runner.cleanup()
