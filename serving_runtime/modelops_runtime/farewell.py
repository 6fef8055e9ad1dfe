"""The time between SIGTERM and the end of the server, in which clients are sent elsewhere.

Uvicorn closes idle connections at once when it is told to end, in the face of requests that are
just on their way. So it is told later: until then requests are answered, with a header that asks
the client to close the connection, and the pod is not ready any more.
"""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

SECONDS: Final = 2.0
"""Long enough for clients that ask now and then to hear of it."""


def before_the_end(call: Callable[[], object]) -> None:
    """Have `call` called on SIGTERM, and the server's own handler `SECONDS` later.

    To be called in the event loop, after the server has set its handler.
    """
    loop = asyncio.get_running_loop()
    server = signal.getsignal(signal.SIGTERM)
    if not callable(server):
        return
    handler = server

    def begin(number: int, frame: FrameType | None) -> None:
        del frame
        loop.call_soon_threadsafe(call)
        loop.call_soon_threadsafe(loop.call_later, SECONDS, handler, number, None)

    signal.signal(signal.SIGTERM, begin)
