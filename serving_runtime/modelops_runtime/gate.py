"""Turns requests away before they are parsed, while too many wait: the price of overload.

An HTTP request costs uvicorn, BentoML and Python's tasks a third of what its answer costs, even if
that is "come again". At three times of what a server can do nothing would be left for those who
are let in. So a whole request for predictions that finds the queue full is answered with bytes
that were written before; what is not plain goes the usual way and hears the same from `endpoint`.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar, Final

import orjson
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from modelops_runtime import problems
from modelops_runtime.admission import Admission, overloaded
from modelops_runtime.asgi import WHOLE, new_id
from modelops_runtime.endpoint import Desk
from modelops_runtime.interfaces import Interface

_LINE: Final = re.compile(rb"POST (/[^ ?%]*) HTTP/1\.1\r\n")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d{1,9})\r\n", re.IGNORECASE)
_ID: Final = re.compile(rb"\r\nx-request-id: *([\x21-\x7e]{1,128})\r\n", re.IGNORECASE)
_UNUSUAL: Final = re.compile(
    rb"\r\n(?:connection: *(?!keep-alive\r)|transfer-encoding|expect|upgrade)", re.IGNORECASE
)
_END: Final = b"\r\n\r\n"
_NAME: Final = b"request-id"
"""Stands for the name of the request in what is written before."""


def install() -> None:
    """Have uvicorn, which BentoML starts, use the gate for its connections."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{Gate.__name__}"


class Prepared:
    """An answer to whoever is turned away, but for the name of the request."""

    def __init__(self, interface: Interface) -> None:
        refusal = interface.translate(overloaded())
        body = refusal.body(_NAME)
        self._length = len(body) - len(_NAME)
        before, _, after = body.replace(b"%", b"%%").partition(_NAME)
        headers = {b"content-type": problems.MEDIA_TYPE, **dict(refusal.headers)}
        lines = b"".join(b"%s: %s\r\n" % each for each in headers.items())
        self._form = (
            STATUS_LINE[HTTPStatus.SERVICE_UNAVAILABLE]
            + lines
            + b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n"
            + before
            + b"%s"
            + after
        )

    def write(self, name: bytes) -> bytes:
        """Write it for the request of this name."""
        written = orjson.dumps(name.decode("ascii"))[1:-1]
        return self._form % (name, self._length + len(written), written)


class Gate(HttpToolsProtocol):
    """One connection."""

    desk: ClassVar[Desk] = Desk()
    """Whose queue it looks at."""
    answers: ClassVar[Mapping[bytes, Prepared]] = {}
    """By path."""
    _reading = False

    @classmethod
    def open(cls, desk: Desk) -> None:
        """Set what is asked for there, before there are connections."""
        cls.desk = desk
        cls.answers = {
            path.encode(): Prepared(interface) for path, interface in desk.interfaces.items()
        }

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if not (self.desk.admission.full and self._turn_away(data)):
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Note that a request is being read."""
        self._reading = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that it is there, and will take its place in the next turn of the event loop."""
        self._reading = False
        self.scope["state"][WHOLE] = True
        admission = self.desk.admission
        if not admission.coming:
            # Runs after the tasks of all that comes in this turn have begun, as the loop is fair.
            self.loop.call_soon(_arrived, admission)
        admission.coming += 1
        super().on_message_complete()

    def _turn_away(self, data: bytes) -> bool:
        """Answer, if these bytes are one request for predictions and nothing is unusual."""
        line = _LINE.match(data)
        answer = None if line is None else self.answers.get(line[1])
        if answer is None or self._busy or self.desk.closing:
            return False
        end = data.find(_END)
        head = data[: end + 2]
        length = _LENGTH.search(head)
        if length is None or end + len(_END) + int(length[1]) != len(data):
            return False
        if _UNUSUAL.search(head) is not None:
            return False
        given = _ID.search(head)
        self.transport.write(answer.write(new_id() if given is None else given[1]))
        self._stay()
        self.desk.turn_away()
        return True

    @property
    def _busy(self) -> bool:
        """Whether another request of this connection is read or answered."""
        return self._reading or not (self.cycle is None or self.cycle.response_complete)

    def _stay(self) -> None:
        """Begin to wait for the next request, as after any answer."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


def _arrived(admission: Admission) -> None:
    admission.coming = 0
