"""The paths that are answered without BentoML, as ASGI middleware around it.

BentoML's typed layer would take a millisecond for what is done here. All ways to ask for
predictions run through the same few lines, whatever their form. What BentoML knows, such as
`/metrics` and the probes, goes on to it; anything else is not found.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Final

from modelops_runtime import problems
from modelops_runtime.admission import LONGEST_QUEUE, Admission, Place
from modelops_runtime.answering import Answered, Answerer
from modelops_runtime.asgi import Application, Message, Receive, Request, Send, decompress
from modelops_runtime.interfaces import Interface
from modelops_runtime.predictors import RowsRefused
from modelops_runtime.problems import Refusal
from modelops_runtime.recording import Recorder
from modelops_runtime.schema import InvalidRows, shortened

MOST_ROWS: Final = 100_000
"""In one request."""
_LONG: Final = 100_000
"""Bytes from which on a body is answered in a thread, so that shorter ones need not wait."""
_LONG_COMPRESSED: Final = 4_000
"""The same for compressed bodies: records shrink that much."""
_THREADS: Final = 2
_BENTOML: Final = frozenset({"/healthz", "/livez", "/metrics", "/readyz", "/schema.json"})
_STATIC: Final = "/static_content/"
_LOG: Final = logging.getLogger("bentoml.modelops")


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered from memory."""

    content: bytes
    media_type: bytes
    ready: bool = False
    """It says that the server is ready: no longer, when the pod is to end."""


class Desk:
    """Where the middleware finds who answers and who takes notes; empty until the models hold.

    BentoML makes the middleware before the service, so one cannot be given to the other.
    """

    def __init__(self) -> None:
        self.answerer: Answerer | None = None
        self.recorder: Recorder | None = None
        self.admission = Admission()
        self.interfaces: Mapping[str, Interface] = {}
        """By path: what answers POST."""
        self.pages: Mapping[str, Page] = {}
        """By path: what answers GET."""
        self.closing = False
        """The pod is to end: clients are told to take their next request elsewhere."""
        self.closers: list[Callable[[], object]] = []
        """What is called in the very end, when all requests are answered."""

    def turn_away(self) -> None:
        """Count a request that was turned away before it came here."""
        self.admission.turn_away()
        if self.recorder is not None:
            self.recorder.fail(HTTPStatus.SERVICE_UNAVAILABLE, 0.0)


class ServingMiddleware:
    """Answers requests for predictions, and pages from memory."""

    def __init__(self, app: Application, desk: Desk) -> None:
        self._app = app
        self._desk = desk
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="answering")
        # Most of these only wait to be answered together with others, see `joining`.
        self._joined = ThreadPoolExecutor(LONGEST_QUEUE, thread_name_prefix="joined")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or pass on what is for BentoML."""
        desk = self._desk
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path in _BENTOML or path.startswith(_STATIC):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send, closing=desk.closing)
        if (interface := desk.interfaces.get(path)) is not None:
            await self._predict(interface, request)
            return
        try:
            page = self._page(path, request)
        except Refusal as refusal:
            await _tell(request, refusal)
        else:
            await request.answer(HTTPStatus.OK, page.media_type, page.content)

    async def _predict(self, interface: Interface, request: Request) -> None:
        start = perf_counter()
        try:
            with self._desk.admission.place() as place:
                request.require("POST")
                body = await request.body(place.hold)
                if body is None:
                    return
                await place.turn()
                answered, content = await self._answer(interface, request, place, body)
                await request.answer(HTTPStatus.OK, b"application/json", content)
        except Refusal as refusal:
            await self._refuse(interface, request, refusal, start)
        except InvalidRows as error:
            await self._refuse(interface, request, problems.bad_rows(error), start)
        except RowsRefused as error:
            await self._refuse(interface, request, problems.refused_by_model(error), start)
        except Exception:  # noqa: BLE001 (a model's own code may raise anything)
            name = request.id.decode("ascii")
            _LOG.exception("request %s cannot be answered", name, extra={"request": name})
            broken = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "look into the log of the server")
            await self._refuse(interface, request, broken, start)
        else:
            if self._desk.recorder is not None:
                self._desk.recorder.note(
                    answered.matrix,
                    answered.scores,
                    answered.content["predictions"],
                    rows=answered.rows,
                    outliers=answered.outliers,
                    seconds=perf_counter() - start,
                )

    async def _answer(
        self, interface: Interface, request: Request, place: Place, body: bytes
    ) -> tuple[Answered, bytes]:
        answerer = self._desk.answerer
        if answerer is None:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the models are not loaded yet")
        work = partial(self._work, answerer, interface, request, place, body)
        longest = _LONG_COMPRESSED if request.compressed else _LONG
        small = len(body) < longest
        if answerer.quick and small:
            return work()
        threads = self._joined if small else self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    def _work(
        self, answerer: Answerer, interface: Interface, request: Request, place: Place, body: bytes
    ) -> tuple[Answered, bytes]:
        place.begin()
        asked = interface.read(decompress(body) if request.compressed else body, request.media_type)
        if len(asked.records) > MOST_ROWS:
            raise problems.too_many_rows(len(asked.records), MOST_ROWS)
        answered = answerer.answer(asked.records)
        return answered, asked.write(answered)

    async def _refuse(
        self, interface: Interface, request: Request, refusal: Refusal, start: float
    ) -> None:
        told = interface.translate(refusal)
        await _tell(request, told)
        if self._desk.recorder is not None:
            self._desk.recorder.fail(told.status, perf_counter() - start)

    def _page(self, path: str, request: Request) -> Page:
        """Find what is answered from memory. Raises Refusal."""
        page = self._desk.pages.get(path)
        if page is None:
            known = ", ".join(sorted({*self._desk.interfaces, "/docs.json", "/metadata"}))
            raise Refusal(
                HTTPStatus.NOT_FOUND, f"{shortened(path)} is not known; there are {known}"
            )
        request.require("GET", "HEAD")
        if page.ready and self._desk.closing:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the server is about to end")
        return page


async def _tell(request: Request, refusal: Refusal) -> None:
    await request.answer(
        refusal.status, problems.MEDIA_TYPE, refusal.body(request.id), refusal.headers
    )
