"""/healthz and /readyz for the kubelet, /metrics for Prometheus."""

import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

STUCK: Final = 300.0
"""Seconds without progress, while there is work, after which a process is to be restarted."""


async def serve(
    *,
    health_port: int,
    metrics_port: int,
    ready: Callable[[], bool],
    busy_since: Callable[[], float],
) -> list[web.AppRunner]:
    """Open both ports. `busy_since`: monotonic time since which work waits without progress."""

    async def healthz(_: web.Request) -> web.Response:
        waited = time.monotonic() - busy_since()
        if waited > STUCK:
            return web.Response(status=503, text=f"no progress for {waited:.0f} s\n")
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the cluster is not listed yet\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    routes = {
        health_port: [web.get("/healthz", healthz), web.get("/readyz", readyz)],
        metrics_port: [web.get("/metrics", metrics)],
    }
    runners = []
    for port, paths in routes.items():
        app = web.Application()
        app.add_routes(paths)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        runners.append(runner)
    return runners
