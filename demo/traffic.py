"""Sends rows to a served model, as its clients would, and counts what came back."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

Row = Mapping[str, Any]
CLIENTS: Final = 4
ROWS_PER_REQUEST: Final = 50
PAUSE: Final = 0.06
"""Seconds between the requests of a steady client; more would starve the training beside it."""


@dataclass(slots=True)
class Tally:
    """What the clients saw."""

    answered: int = 0
    rows: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    """Requests by the version of the predictor that answered."""

    def count(self, other: "Tally") -> None:
        """Add what another client saw."""
        self.answered += other.answered
        self.rows += other.rows
        self.failures += other.failures
        self.versions += other.versions


def ask(client: httpx.Client, url: str, rows: list[Row], tally: Tally) -> None:
    """Ask for predictions and count the answer. A failure is counted, never repeated."""
    try:
        answer = client.post(url, json=rows)
    except httpx.HTTPError as error:
        tally.failures[type(error).__name__] += 1
        return
    if answer.status_code != 200:
        tally.failures[f"{answer.status_code}: {answer.text[:200]}"] += 1
        return
    body = answer.json()
    if len(body["predictions"]) != len(rows):
        tally.failures["an answer of another length"] += 1
        return
    tally.answered += 1
    tally.rows += len(rows)
    tally.versions[str(body["model"]["version"])] += 1


def send(url: str, rows: Iterable[Row], *, seconds: float) -> Tally:
    """Spread rows evenly over some seconds."""
    requests = list(_batches(rows))
    started, tally = time.monotonic(), Tally()
    with httpx.Client(timeout=10) as client, ThreadPoolExecutor(CLIENTS) as pool:

        def at(number: int) -> Tally:
            due = started + seconds * number / len(requests)
            time.sleep(max(0.0, due - time.monotonic()))
            mine = Tally()
            ask(client, url, requests[number], mine)
            return mine

        for one in pool.map(at, range(len(requests))):
            tally.count(one)
    return tally


@contextmanager
def steady(url: str, rows: Iterable[Row]) -> Iterator[Tally]:
    """Send single rows from several clients for as long as the block lasts."""
    tally, stop, some = Tally(), threading.Event(), list(itertools.islice(rows, 2000))
    lock = threading.Lock()

    def client(first: int) -> None:
        with httpx.Client(timeout=10) as http:
            for row in itertools.cycle(some[first:] + some[:first]):
                if stop.is_set():
                    return
                mine = Tally()
                ask(http, url, [row], mine)
                with lock:
                    tally.count(mine)
                time.sleep(PAUSE)

    threads = [threading.Thread(target=client, args=(number * 100,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while part := list(itertools.islice(remaining, ROWS_PER_REQUEST)):
        yield part
