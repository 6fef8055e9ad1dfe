"""HTTP as ASGI hands it over: bodies that come, compressed or not, and answers that go."""

import asyncio
import re
import secrets
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from modelops_runtime.problems import Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

JSON: Final = b"application/json"
WHOLE: Final = "modelops.whole"
"""In the state of a scope: all of the body is there already, so nobody has to count the time."""
LARGEST_BODY: Final = 32 * 2**20
"""Bytes, after decompression. About 100,000 records of thirty fields."""
_LARGEST_READ: Final = 8 * LARGEST_BODY
"""Bytes that are read and thrown away, so that the client gets to read the refusal."""
BODY_SECONDS: Final = 60.0
"""How long a body may take to arrive."""
_SMALLEST_GZIP: Final = 16 * 2**10
"""Bytes from which on answers are compressed: shorter ones take longer to compress than to send."""
_GZIP: Final = zlib.MAX_WBITS | 16
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_TOO_LARGE: Final = f"the body has more than {LARGEST_BODY:,} bytes; send fewer rows at a time"


class Request:
    """One request, and how it is answered."""

    __slots__ = ("_receive", "_send", "_whole", "closing", "headers", "id", "method")

    def __init__(self, scope: Message, receive: Receive, send: Send, *, closing: bool) -> None:
        self._receive = receive
        self._send = send
        self._whole = WHOLE in scope.get("state", ())
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.closing = closing
        """The client is asked to take its next request elsewhere."""
        given = self.headers.get(b"x-request-id", b"")
        self.id = given if _REQUEST_ID.fullmatch(given) else new_id()
        """What names the request in answers, problems and logs."""

    def require(self, *methods: str) -> None:
        """Raise Refusal for other methods than these."""
        if self.method not in methods:
            allowed = ", ".join(methods)
            raise Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{self.method} is not for this path; {allowed} is",
                headers=((b"allow", allowed.encode()),),
            )

    @property
    def media_type(self) -> bytes:
        """The body's, as the client wrote it; empty where it did not."""
        return self.headers.get(b"content-type", b"")

    @property
    def compressed(self) -> bool:
        """Whether the body is. Raises Refusal for what cannot be decompressed."""
        coding = self.headers.get(b"content-encoding", b"identity").lower()
        if coding in {b"identity", b""}:
            return False
        if coding in {b"gzip", b"x-gzip"}:
            return True
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"content-encoding {coding.decode('latin-1')} is not known; compress with gzip,"
            " or not at all",
            headers=((b"accept-encoding", b"gzip"),),
        )

    async def body(self, hold: Callable[[int], object]) -> bytes | None:
        """Read the body as it was sent; None if the client went away.

        `hold` is told of each piece's bytes before they are kept. Raises Refusal when the body is
        too large or does not come.
        """
        if self._whole:
            return await self._read(hold)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._read(hold)
        except TimeoutError:
            raise Refusal(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body did not arrive within {BODY_SECONDS:g} seconds",
                headers=((b"connection", b"close"),),
            ) from None

    async def _read(self, hold: Callable[[int], object]) -> bytes | None:
        pieces: list[bytes] = []
        size = 0
        more = True
        while more and size <= _LARGEST_READ:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            size += len(piece)
            if size <= LARGEST_BODY:
                hold(len(piece))
                pieces.append(piece)
            more = message.get("more_body", False)
        if size > LARGEST_BODY:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def answer(
        self, status: HTTPStatus, media_type: bytes, body: bytes, headers: Headers = ()
    ) -> None:
        """Send the answer, compressed if that is worth it and the client takes it."""
        head = [(b"content-type", media_type), (b"x-request-id", self.id), *headers]
        if len(body) >= _SMALLEST_GZIP:
            head.append((b"vary", b"accept-encoding"))
            if _takes_gzip(self.headers.get(b"accept-encoding", b"")):
                body = await asyncio.to_thread(zlib.compress, body, 1, _GZIP)
                head.append((b"content-encoding", b"gzip"))
        head.append((b"content-length", str(len(body)).encode()))
        if self.closing:
            head.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status.value, "headers": head})
        await self._send({"type": "http.response.body", "body": body})


def new_id() -> bytes:
    """Make a name for a request whose client gave it none."""
    return secrets.token_hex(8).encode()


def decompress(body: bytes) -> bytes:
    """Decompress a gzip body. Raises Refusal when it is none, or too large when decompressed."""
    parts: list[bytes] = []
    left = LARGEST_BODY
    try:
        while body:
            member = zlib.decompressobj(_GZIP)  # of which a stream may have several
            parts.append(_inflate(member, body, left))
            left -= len(parts[-1])
            body = member.unused_data
    except zlib.error as error:
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            f"the body is not gzip, as its content-encoding says: {error}",
            title="The body is not gzip",
        ) from error
    return b"".join(parts)


def _inflate(member: "zlib._Decompress", body: bytes, most: int) -> bytes:
    found = member.decompress(body, most + 1)
    if len(found) > most:
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)
    if not member.eof:
        raise zlib.error("it ends too early")
    return found


def _takes_gzip(accepted: bytes) -> bool:
    """Whether `Accept-Encoding` names gzip with a quality above zero."""
    for coding in accepted.lower().split(b","):
        name, _, weight = coding.partition(b";")
        if name.strip() in {b"gzip", b"*"}:
            return weight.strip().replace(b" ", b"").rstrip(b"0") not in {b"q=", b"q=0."}
    return False
