"""GET /healthz, /readyz, /metrics."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_app(unhealthy: Callable[[], str], ready: Callable[[], bool], metrics: Callable[[], bytes]) -> web.Application:
    """`unhealthy()` says why, or nothing."""

    async def healthz(_: web.Request) -> web.Response:
        reason = unhealthy()
        return web.Response(text=reason or "ok", status=503 if reason else 200)

    async def readyz(_: web.Request) -> web.Response:
        return (
            web.Response(text="ok") if ready() else web.Response(text="the API server was not reached yet", status=503)
        )

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": METRICS_TYPE})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", show_metrics)])
    return app


async def serve(app: web.Application, port: int) -> web.AppRunner:
    """Listens on all addresses; the caller cleans the runner up."""
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()
    return runner
