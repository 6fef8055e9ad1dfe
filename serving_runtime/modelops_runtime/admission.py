"""Admits requests to one worker: a bounded queue, so that overload is told instead of waited out.

A worker answers one short request after the other. What arrives meanwhile waits in the event loop
where nobody sees it, so each request counts itself as waiting and lets the others do so before it
is answered. One that finds too many before it, or waited too long, is turned away at once with
status 503, which costs a fraction of an answer.
"""

import asyncio
from http import HTTPStatus
from time import perf_counter
from types import TracebackType
from typing import Final, Self

from modelops_runtime.asgi import LARGEST_BODY
from modelops_runtime.problems import Refusal

LONGEST_QUEUE: Final = 64
"""Requests that wait for their turn, unless the environment says otherwise."""
LONGEST_WAIT: Final = 2.0
"""Seconds after which a request that waits is turned away."""
MOST_BYTES: Final = 4 * LARGEST_BODY
"""Of the bodies that are held at a time."""
_RETRY: Final = ((b"retry-after", b"1"),)


class Admission:
    """Counts the requests of one worker."""

    def __init__(self, longest: int = LONGEST_QUEUE) -> None:
        self.longest = longest
        """Requests that may wait at a time."""
        self.waiting = 0
        """Requests that wait for their turn or have it."""
        self.bytes = 0
        """Bytes of bodies that are held."""
        self.in_flight = 0
        """Requests that came and are not answered, those whose bodies are read included."""
        self._peak = 0

    def place(self) -> "Place":
        """Give a request its place: a context, to be left when it is answered."""
        return Place(self)

    def enter(self) -> None:
        """Count a request as in flight."""
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)

    def peak(self) -> int:
        """Give the most requests in flight at a time since the last call."""
        peak, self._peak = self._peak, self.in_flight
        return peak


class Place:
    """One request's place."""

    __slots__ = ("_admission", "_bytes", "_since")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._bytes = 0
        self._since = 0.0

    def __enter__(self) -> Self:
        self._admission.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission.in_flight -= 1
        self._admission.bytes -= self._bytes
        if self._since:
            self._admission.waiting -= 1

    def hold(self, count: int) -> None:
        """Hold some more bytes of the body. Raises Refusal when too many are held."""
        if self._admission.bytes + count > MOST_BYTES:
            raise _overloaded("too many large requests are being read")
        self._admission.bytes += count
        self._bytes += count

    async def turn(self) -> None:
        """Let those who came before go first. Raises Refusal when they are too many."""
        admission = self._admission
        if admission.waiting >= admission.longest:
            raise _overloaded(f"{admission.waiting} requests wait already")
        admission.waiting += 1
        self._since = perf_counter()
        await asyncio.sleep(0)

    def begin(self) -> None:
        """Begin to answer. Raises Refusal when the request waited too long."""
        if perf_counter() - self._since > LONGEST_WAIT:
            raise _overloaded(f"the request waited more than {LONGEST_WAIT:g} seconds")


def _overloaded(why: str) -> Refusal:
    return Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{why}; ask again in a second, or give the deployment more replicas",
        title="The server is overloaded",
        headers=_RETRY,
    )
