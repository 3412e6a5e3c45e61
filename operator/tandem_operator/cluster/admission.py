"""The validating webhook: TLS, one path, and an answer whatever happens. Every replica serves, the standbys too.

It is advice at the door: when it does not answer, API servers take the object (failurePolicy Ignore), and the reconcile
loop says the same in the conditions Accepted and Placed.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol

from aiohttp import web

from tandem_operator.cluster.certificates import Credentials, server_context
from tandem_operator.cluster.trust import Trust
from tandem_operator.placement.verdict import Verdict
from tandem_operator.reconcile.admission import Malformed, Pose, answer, read_request, review
from tandem_operator.reconcile.world import Object

log = logging.getLogger(__name__)

PATH: Final = "/validate"
BODY_BYTES: Final = 8 << 20
"""An API server takes objects of 3 MiB; a review of a change holds two of them."""
UNCHECKED: Final = "placement was not checked: the operator erred; the conditions of the object will tell"


async def keep_serving(server: AdmissionServer, trust: Trust, leads: Callable[[], bool]) -> None:
    """Until cancelled: whatever goes wrong with it must not cost the operator its life."""
    try:
        await trust.follow(leads, server.use)
    finally:
        await server.close()


class Observer(Protocol):
    """Counts reviews."""

    def __call__(self, result: str, seconds: float) -> None: ...


class AdmissionServer:
    """Listens from the first certificate on; a later one is used for new connections."""

    def __init__(self, pose: Pose, port: int, observe: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self._pose, self._port, self._observe, self._clock = pose, port, observe, clock
        self._context: ssl.SSLContext | None = None
        self._runner: web.AppRunner | None = None

    async def use(self, credentials: Credentials) -> None:
        """Raises ssl.SSLError when certificate and key do not fit, OSError when the port is taken."""
        if self._context:
            credentials.load_into(self._context)
            return
        context = server_context(credentials)
        runner = web.AppRunner(self.app(), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "0.0.0.0", self._port, ssl_context=context).start()
        except OSError:
            await runner.cleanup()
            raise
        self._context, self._runner = context, runner
        log.info("admission is served on port %d", self._port)

    @property
    def port(self) -> int:
        """That it listens on; the one asked for may be 0."""
        return int(self._runner.addresses[0][1]) if self._runner else self._port

    async def close(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES)
        app.add_routes([web.post(PATH, self._validate)])
        return app

    async def _validate(self, request: web.Request) -> web.Response:
        started = self._clock()
        try:
            asked = read_request(json.loads(await request.read()))
        except (Malformed, ValueError, RecursionError) as error:
            self._observe("malformed", self._clock() - started)
            return web.Response(status=400, text=str(error) or "the body is no JSON")
        result, verdict = self._judge(asked)
        self._observe(result, self._clock() - started)
        return web.json_response(answer(asked, verdict))

    def _judge(self, asked: Object) -> tuple[str, Verdict]:
        """An error of ours must not stop anybody's work."""
        key = (str(asked.get("namespace", "")), str(asked.get("name", "")))
        try:
            verdict = review(asked, self._pose)
        except Exception:
            log.exception("a review failed", extra={"key": key})
            return "error", Verdict(warnings=(UNCHECKED,))
        if verdict.refusal:
            log.info("refused at admission: %s", verdict.refusal, extra={"key": key})
        return "refused" if verdict.refusal else "warned" if verdict.warnings else "allowed", verdict
