"""A loopback proxy between the operator and what it talks to: it counts, delays, cuts and fakes.

It speaks HTTP on this side, so that every request is seen, and whatever the server speaks on the
other. It runs in a thread of its own.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

_WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HOP = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Call:
    """A request on its way."""

    number: int
    """Counts the writes from 1; 0 for what only reads."""
    method: str
    path: str
    """With the query."""
    body: bytes

    def mentions(self, word: str) -> bool:
        """Tell whether path or body name something."""
        return word in self.path or word.encode() in self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with a request."""

    forwarded: bool = False
    """The server gets it all the same; only its answer is lost."""
    status: int = 0
    """Answered in place of the server; 0: the connection is cut."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    silence: float = 0.0
    """Seconds until that."""
    meanwhile: Callable[[], object] = lambda: None
    """Done before the answer, such as to kill who asked."""


Rule = Callable[[Call], Fault | None]
Heard = Callable[[Mapping[str, Any]], bool]


class Proxy:
    """One server's stand-in; `rule` says what goes wrong, and may be replaced at any time."""

    def __init__(self, upstream: str, *, writes: Callable[[Call], bool] = lambda _: True) -> None:
        """`writes` tells which of the calls that write are to be counted."""
        self.rule: Rule = lambda _: None
        self.hears: Heard = lambda _: True
        """Which events of watches are handed on."""
        self.delay = 0.0
        """Seconds that every request takes longer."""
        self.longest_watch: float | None = None
        """Seconds after which a watch is cut."""
        self.stale: dict[str, tuple[int, bytes]] | None = None
        """Answers to reads, given again and again once there is a place to keep them."""
        self.written: list[Call] = []
        """The writes that came, in their order."""
        self.address = ""
        self._upstream = upstream
        self._counts = writes
        self._watches: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)

    def reset(self) -> None:
        """Count from 1 again, and let everything through."""
        self.rule = lambda _: None
        self.written = []

    def cut(self) -> None:
        """Cut the watches that are open."""
        self._loop.call_soon_threadsafe(self._cut)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", self._pass)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        # A watch's event is one line, however long.
        connector = aiohttp.TCPConnector(ssl=False, limit=0)
        async with aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**22,
        ) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._started.set()
            await self._ended.wait()
            await runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = self._seen(request, body)
        fault = self.rule(call)
        await asyncio.sleep(self.delay)
        if fault is None and self.stale is not None and _reads(call):
            return await self._answer_again(request, self.stale)
        if fault is None:
            return await self._forward(request, body)
        if fault.forwarded:
            async with self._ask(request, body) as answer:
                await answer.read()
        await asyncio.sleep(fault.silence)
        fault.meanwhile()
        if not fault.status and request.transport is not None:  # or it has gone by itself
            request.transport.abort()
        return web.Response(status=fault.status or 500, body=fault.body, headers=fault.headers)

    def _seen(self, request: web.Request, body: bytes) -> Call:
        call = Call(len(self.written) + 1, request.method, request.raw_path, body)
        if request.method in _WRITING and self._counts(call):
            self.written.append(call)
            return call
        return Call(0, call.method, call.path, body)

    async def _forward(self, request: web.Request, body: bytes) -> web.StreamResponse:
        async with self._ask(request, body) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            if "watch=" in request.raw_path and answer.status == 200:
                await self._watch(request, answer, response)
                return response
            with suppress(ConnectionError):
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
            return response

    async def _watch(
        self, request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse
    ) -> None:
        """Hand on what is to be heard, until the watch is cut or who asked is gone."""
        watch = asyncio.create_task(self._hand_on(answer, response))
        self._watches.add(watch)
        try:
            await asyncio.wait([watch], timeout=self.longest_watch)
        finally:
            self._watches.discard(watch)
            if (watch.cancel() or watch.cancelled()) and request.transport is not None:
                request.transport.abort()
            await asyncio.gather(watch, return_exceptions=True)

    async def _hand_on(self, answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        with suppress(ConnectionError):
            while line := await answer.content.readline():
                if self.hears(json.loads(line)):
                    await response.write(line)
            await response.write_eof()

    async def _answer_again(
        self, request: web.Request, stale: dict[str, tuple[int, bytes]]
    ) -> web.Response:
        if request.raw_path not in stale:
            async with self._ask(request, b"") as answer:
                stale[request.raw_path] = (answer.status, await answer.read())
        status, content = stale[request.raw_path]
        return web.Response(status=status, body=content, content_type="application/json")

    def _cut(self) -> None:
        for watch in list(self._watches):
            watch.cancel()

    @asynccontextmanager
    async def _ask(
        self, request: web.Request, body: bytes
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        kept = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        url = URL(self._upstream + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, headers=kept, data=body or None
        ) as answer:
            try:
                yield answer
            finally:
                if answer.connection is not None and answer.connection.transport is not None:
                    # Not read to its end. To take leave by TLS may last longer than this loop.
                    answer.connection.transport.abort()


def _reads(call: Call) -> bool:
    return call.method == "GET" and "watch=" not in call.path
