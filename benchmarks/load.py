"""Asks a server over kept-alive connections: as fast as it answers, or at a rate of one's own.

Written on sockets and uvloop, since ready-made generators either keep no latencies by status or
cannot hold a rate. What it can do at most is measured against `peers/trivial.py`.
"""

import asyncio
import contextlib
import itertools
import math
import re
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, cast

import orjson
import uvloop

PATIENCE = 60.0
"""Seconds for the last answers to come in."""
TICK = 0.001
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Outcome:
    """What came back."""

    seconds: float = 0.0
    """From the first request to the last answer."""
    accepted: list[float] = field(default_factory=list)
    """Seconds to each answer of status 200."""
    turned_away: list[float] = field(default_factory=list)
    """Seconds to each answer of status 503."""
    failed: int = 0
    """Other answers, and connections that broke."""
    unsent: int = 0
    """Requests of a fixed rate for which no connection was free."""

    @property
    def rate(self) -> float:
        """Answers of status 200 in a second."""
        return len(self.accepted) / self.seconds

    def percentile(self, share: float) -> float:
        """Give the seconds within which this share of the accepted requests was answered."""
        ordered = sorted(self.accepted)
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.inf


def request(path: str, body: bytes) -> bytes:
    """Write a request."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def ask(port: int, path: str, content: object) -> Any:
    """Ask once, with JSON for JSON."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        orjson.dumps(content),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        return orjson.loads(answer.read())


def saturate(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float = math.inf,
    count: float = math.inf,
) -> Outcome:
    """Send on each connection as soon as the last answer is there, until time or count is up."""
    return uvloop.run(_saturate(port, requests, connections, seconds, count))


def offer(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float, rate: float
) -> Outcome:
    """Send so many requests a second, however long the answers take."""
    return uvloop.run(_offer(port, requests, connections, seconds, rate))


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], done: "_Done") -> None:
        self._requests = requests
        self._done = done
        self._received = b""
        self._began = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        assert self._transport is not None
        self._began = perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        length = _LENGTH.search(self._received, 0, max(end, 0))
        if length is None or len(self._received) < end + 4 + int(length[1]):
            return
        status, self._received = int(self._received[9:12]), b""
        self._done(self, status, perf_counter() - self._began)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._transport is not None:
            self._transport = None
            self._done(self, 0, 0.0)

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


_Done = Callable[[_Connection, int, float], None]


async def _connect(
    port: int, requests: Sequence[bytes], connections: int, done: _Done
) -> list[_Connection]:
    loop, endless = asyncio.get_running_loop(), itertools.cycle(requests)
    made = [
        await loop.create_connection(lambda: _Connection(endless, done), "127.0.0.1", port)
        for _ in range(connections)
    ]
    return [protocol for _, protocol in made]


def _note(outcome: Outcome, status: int, seconds: float) -> None:
    if status == 200:
        outcome.accepted.append(seconds)
    elif status == 503:
        outcome.turned_away.append(seconds)
    else:
        outcome.failed += 1


async def _saturate(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, count: float
) -> Outcome:
    outcome, finished = Outcome(), asyncio.Event()
    sent = busy = connections
    deadline = math.inf

    def done(connection: _Connection, status: int, took: float) -> None:
        nonlocal sent, busy
        _note(outcome, status, took)
        if status and sent < count and perf_counter() < deadline:
            sent += 1
            connection.send()
            return
        busy -= 1
        if not busy:
            finished.set()

    made = await _connect(port, requests, connections, done)
    began = perf_counter()
    deadline = began + seconds
    for each in made:
        each.send()
    await finished.wait()
    outcome.seconds = perf_counter() - began
    for each in made:
        each.close()
    return outcome


async def _offer(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, rate: float
) -> Outcome:
    outcome, idle, quiet = Outcome(), list[_Connection](), asyncio.Event()

    def done(connection: _Connection, status: int, took: float) -> None:
        if not status:
            return  # never idle again, and counted in the end
        _note(outcome, status, took)
        idle.append(connection)
        if len(idle) == connections:
            quiet.set()

    made = await _connect(port, requests, connections, done)
    idle += made
    quiet.set()
    due, began = 0, perf_counter()
    while (passed := perf_counter() - began) < seconds:
        wanted = int(passed * rate)
        for _ in range(wanted - due):
            if idle:
                quiet.clear()
                idle.pop().send()
            else:
                outcome.unsent += 1
        due = wanted
        await asyncio.sleep(TICK)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await quiet.wait()
    outcome.seconds = perf_counter() - began
    outcome.failed += connections - len(idle)
    for each in made:
        each.close()
    return outcome
