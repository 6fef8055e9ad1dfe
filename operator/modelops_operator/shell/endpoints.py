"""/healthz and /readyz for the kubelet, /metrics for Prometheus."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

STUCK: Final = 300.0
"""Seconds for which nothing may go on although there is work; then a restart is wanted."""


@asynccontextmanager
async def endpoints(
    *, health_port: int, metrics_port: int, ready: Callable[[], bool], stuck: Callable[[], float]
) -> AsyncIterator[None]:
    """Serve both ports meanwhile.

    `ready` tells whether the cluster is known, `stuck` for how many seconds nothing has gone on
    although there is work. An answer at all proves that the event loop advances.
    """

    async def healthz(_: web.Request) -> web.Response:
        seconds = stuck()
        if seconds > STUCK:
            return web.Response(status=503, text=f"no progress for {seconds:.0f} s\n")
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the cluster is not listed yet\n")

    async def metrics(_: web.Request) -> web.Response:
        # Of thousands of models it takes a second, for which the loop has better to do.
        body = await asyncio.to_thread(generate_latest)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    health = await _serve(health_port, [web.get("/healthz", healthz), web.get("/readyz", readyz)])
    figures = await _serve(metrics_port, [web.get("/metrics", metrics)])
    try:
        yield
    finally:
        await health.cleanup()
        await figures.cleanup()


async def _serve(port: int, routes: list[web.RouteDef]) -> web.AppRunner:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
