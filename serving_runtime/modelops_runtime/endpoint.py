"""`POST /predict` as ASGI middleware: what BentoML's typed layer would do in a millisecond.

Everything else goes on to BentoML. The answer is the same that the typed API gives, which stays
for Swagger and for clients in the same process.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final

import orjson

from modelops_runtime import documentation, problems
from modelops_runtime.answering import Answered, Answerer
from modelops_runtime.problems import Refusal
from modelops_runtime.recording import Recorder
from modelops_runtime.schema import InvalidRows

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

PATH: Final = "/predict"
METADATA_PATH: Final = "/metadata"
_PATHS: Final = {PATH, METADATA_PATH, "/"}
LARGEST_BODY: Final = 32 * 2**20
"""Bytes. About 100,000 records of thirty fields."""
_LARGEST_READ: Final = 8 * LARGEST_BODY
"""Bytes that are read and thrown away, so that the client gets to read the refusal."""
_ROWS: Final = {"rows"}
_LONG: Final = 100_000
"""Bytes from which on a body is answered in a thread, so that shorter ones need not wait."""
_JSON: Final = b"application/json"
_HTML: Final = b"text/html; charset=utf-8"
_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_LOG: Final = logging.getLogger("bentoml.modelops")


class Desk:
    """Where the endpoint finds who answers and who takes notes; empty until the models hold.

    BentoML makes the middleware before the service, so one cannot be given to the other.
    """

    def __init__(self) -> None:
        self.answerer: Answerer | None = None
        self.recorder: Recorder | None = None
        self.names: tuple[str, ...] = ()
        """The inputs' names, for refusals."""
        self.metadata = b"{}"
        """What `GET /metadata` answers."""
        self.closing = False
        """The pod is to end: clients are told to take their next request elsewhere."""


class PredictMiddleware:
    """Answers `POST /predict`; also the page of Swagger UI and `/metadata`, from memory."""

    def __init__(self, app: Application, desk: Desk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or pass on what is for others."""
        if scope["type"] != "http" or scope["path"] not in _PATHS:
            await self._app(scope, receive, send)
        elif scope["path"] == PATH:
            await self._predict(scope, receive, send)
        elif scope["path"] == METADATA_PATH:
            await self._send(send, HTTPStatus.OK, _JSON, self._desk.metadata)
        else:
            await self._send(send, HTTPStatus.OK, _HTML, documentation.PAGE)

    async def _predict(self, scope: Message, receive: Receive, send: Send) -> None:
        start = perf_counter()
        try:
            body = await _body(scope, receive)
            if body is None:
                return
            answered, content = await self._answer(body)
        except Refusal as refusal:
            await self._refuse(refusal, start, send)
            return
        except Exception:  # noqa: BLE001 (a model's own code may raise anything)
            _LOG.exception("a request cannot be answered")
            broken = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "look into the log of the server")
            await self._refuse(broken, start, send)
            return
        await self._send(send, HTTPStatus.OK, _JSON, content)
        if self._desk.recorder is not None:
            self._desk.recorder.note(
                answered.matrix,
                answered.scores,
                rows=answered.rows,
                outliers=answered.outliers,
                seconds=perf_counter() - start,
            )

    async def _answer(self, body: bytes) -> tuple[Answered, bytes]:
        answerer = self._desk.answerer
        if answerer is None:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the models are not loaded yet")
        if len(body) < _LONG:
            return self._answer_now(answerer, body)
        return await asyncio.to_thread(self._answer_now, answerer, body)

    def _answer_now(self, answerer: Answerer, body: bytes) -> tuple[Answered, bytes]:
        try:
            rows = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise problems.not_json(error) from error
        if isinstance(rows, dict) and rows.keys() == _ROWS:
            rows = rows["rows"]
        if not isinstance(rows, list):
            raise problems.not_a_list(rows, self._desk.names)
        try:
            answered = answerer.answer(rows)
        except InvalidRows as error:
            raise problems.bad_rows(error) from error
        return answered, orjson.dumps(answered.content, option=_OPTIONS)

    async def _refuse(self, refusal: Refusal, start: float, send: Send) -> None:
        await self._send(
            send, refusal.status, problems.MEDIA_TYPE, refusal.body(), headers=refusal.headers
        )
        if self._desk.recorder is not None:
            self._desk.recorder.fail(refusal.status, perf_counter() - start)

    async def _send(
        self,
        send: Send,
        status: HTTPStatus,
        media_type: bytes,
        body: bytes,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        start = [
            (b"content-type", media_type),
            (b"content-length", str(len(body)).encode()),
            *headers,
        ]
        if self._desk.closing:
            start.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status.value, "headers": start})
        await send({"type": "http.response.body", "body": body})


async def _body(scope: Message, receive: Receive) -> bytes | None:
    """Read the request's body; None if the client went away. Raises Refusal."""
    if scope["method"] != "POST":
        raise Refusal(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"{scope['method']} is not for {PATH}; POST a list of records",
            headers=((b"allow", b"POST"),),
        )
    headers = dict(scope["headers"])
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body without compression")
    pieces: list[bytes] = []
    size = 0
    more = True
    while more and size <= _LARGEST_READ:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        piece = message.get("body", b"")
        size += len(piece)
        if size <= LARGEST_BODY:
            pieces.append(piece)
        more = message.get("more_body", False)
    if size > LARGEST_BODY:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body has more than {LARGEST_BODY:,} bytes; send fewer rows at a time",
        )
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
