"""Admits requests to one worker: a bounded queue, so that overload is told instead of waited out.

A worker answers one short request after the other. What arrives meanwhile waits in the event loop
where nobody sees it, so each request counts itself as waiting and lets the others do so before it
is answered. One that finds too many before it, or waited too long, is turned away at once with
status 503: by `gate`, before it is parsed, where that can be.

A full queue is no delay that clients should have for long. A burst may fill it; when more than a
tenth of what comes is turned away, more arrives than can be answered, and whoever is let in would
only wait behind a queue that never empties. So it is kept short until that is over: the same
number is answered, at once.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from time import perf_counter
from types import TracebackType
from typing import Final, Self

from modelops_runtime.asgi import LARGEST_BODY
from modelops_runtime.problems import Refusal

LONGEST_QUEUE: Final = 64
"""Requests that wait for their turn, unless the environment says otherwise."""
SHORTEST_QUEUE: Final = 6
"""The same in overload: enough for the worker never to be idle."""
LONGEST_WAIT: Final = 2.0
"""Seconds after which a request that waits is turned away."""
MOST_BYTES: Final = 4 * LARGEST_BODY
"""Of the bodies that are held at a time."""
_WINDOW: Final = 0.1
"""Seconds after which it is judged again whether this is overload."""
_MOST_TURNED_AWAY: Final = 0.1
"""Share of the requests from which on it is."""
_RETRY: Final = ((b"retry-after", b"1"),)


class Admission:
    """Counts the requests of one worker."""

    def __init__(
        self,
        longest: int = LONGEST_QUEUE,
        shortest: int = SHORTEST_QUEUE,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.waiting = 0
        """Requests that wait for their turn or have it."""
        self.coming = 0
        """Requests that were let in and do not count as waiting yet."""
        self.bytes = 0
        """Bytes of bodies that are held."""
        self.in_flight = 0
        """Requests that came and are not answered, those whose bodies are read included."""
        self._peak = 0
        self._clock = clock
        self._let_in = self._turned_away = 0
        """Within the window, which ends then."""
        self._end = 0.0
        self.bound(longest, shortest)

    def bound(self, longest: int, shortest: int = SHORTEST_QUEUE) -> None:
        """Set how many requests may wait at a time, usually and in overload."""
        self._longest = self.most = longest
        self._shortest = min(shortest, longest)

    @property
    def full(self) -> bool:
        """Whether one more request is one too many."""
        return self.waiting + self.coming >= self.most

    def turn_away(self) -> None:
        """Count a request that comes while all is full."""
        self._turned_away += 1
        self._judge()

    def let_in(self) -> None:
        """Count a request that waits from now on."""
        self.waiting += 1
        self._let_in += 1
        self._judge()

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

    def _judge(self) -> None:
        """Keep the queue short in overload, and let it grow again when that is over."""
        now = self._clock()
        if now < self._end:
            return
        share = self._turned_away / (self._turned_away + self._let_in)
        if now >= self._end + _WINDOW:
            self.most = self._longest  # nothing came for a while
        elif share > _MOST_TURNED_AWAY:
            self.most = self._shortest
        else:
            self.most = min(2 * self.most, self._longest)
        self._let_in = self._turned_away = 0
        self._end = now + _WINDOW


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
            raise overloaded("too many large requests are being read")
        self._admission.bytes += count
        self._bytes += count

    async def turn(self) -> None:
        """Let those who came before go first. Raises Refusal when they are too many."""
        admission = self._admission
        if admission.waiting >= admission.most:
            admission.turn_away()
            raise overloaded()
        admission.let_in()
        self._since = perf_counter()
        await asyncio.sleep(0)

    def begin(self) -> None:
        """Begin to answer. Raises Refusal when the request waited too long."""
        if perf_counter() - self._since > LONGEST_WAIT:
            raise overloaded(f"the request waited more than {LONGEST_WAIT:g} seconds")


def overloaded(why: str = "too many requests wait already") -> Refusal:
    """Tell a client to come again."""
    return Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{why}; ask again in a second, or give the deployment more replicas",
        title="The server is overloaded",
        headers=_RETRY,
    )
