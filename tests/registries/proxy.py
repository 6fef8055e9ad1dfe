"""A proxy before a real registry that answers some requests itself: faults, or a protocol."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from aiohttp import web
from modelops_operator.adapters.tls import tls_context

Rule = Callable[[web.Request, bytes], Awaitable[web.StreamResponse | None] | None]
_OWN_HEADERS = {"content-length", "transfer-encoding", "connection", "date", "content-encoding"}


@dataclass
class Proxy:
    """Passes requests on unless its rule answers; keeps account of them."""

    upstream: str
    """Origin of the registry."""
    rule: Rule | None = None
    origin: str = ""
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path with query, and headers (names in small letters) of each request."""

    @property
    def host(self) -> str:
        return self.origin.partition("://")[2]

    def count(self, method: str, part: str) -> int:
        return sum(seen == method and part in path for seen, path, _ in self.seen)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.method, str(request.rel_url), headers))
        if self.rule is not None and (own := self.rule(request, body)) is not None:
            response = await own
            if response is not None:
                return response
        return await self.pass_on(request, body)

    async def pass_on(self, request: web.Request, body: bytes) -> web.Response:
        # Its addresses are to be those of the proxy.
        headers = {**request.headers, "x-forwarded-proto": request.scheme}
        headers.pop("Transfer-Encoding", None)
        async with httpx.AsyncClient(timeout=60, verify=tls_context(None)) as client:
            response = await client.request(
                request.method,
                f"{self.upstream}{request.rel_url}",
                content=body,
                headers=headers,
            )
        kept = [
            (name, value)
            for name, value in response.headers.multi_items()
            if name.lower() not in _OWN_HEADERS
        ]
        answer = web.Response(status=response.status_code, body=response.content)
        for name, value in kept:
            if name.lower() == "content-type":
                answer.headers[name] = value
            else:
                answer.headers.add(name, value)
        if request.method == "HEAD" and (size := response.headers.get("content-length")):
            answer.headers["content-length"] = size
        return answer


@asynccontextmanager
async def serving(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Serve on a free port of 127.0.0.1; give the origin."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def proxied(
    upstream: str, rule: Rule | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Proxy]:
    """Run a proxy before the registry at the origin `upstream`."""
    proxy = Proxy(upstream, rule)
    async with serving(proxy.answer, tls) as origin:
        proxy.origin = origin
        yield proxy
