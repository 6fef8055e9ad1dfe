"""A uniform sample of the rows of a window: what detectors of others are shown.

Each row draws a random key, and the rows with the smallest keys are kept. Samples of several
workers merge into a uniform sample of all their rows in the same way, whatever their shares were.

Cohen and Kaplan, "Summarizing data using bottom-k sketches", 2007.
"""

import heapq
from collections.abc import Iterable, Mapping
from random import Random
from threading import Lock
from typing import Final, TypeAlias

MOST_ROWS: Final = 1_000
"""Of a window. A test on as many finds what is worth an alarm."""

Keyed: TypeAlias = tuple[float, Mapping[str, object]]
"""A row and its key, from 0 to 1."""


class Sampler:
    """Draws rows; safe to use from several threads."""

    def __init__(self, most: int = MOST_ROWS, random: Random | None = None) -> None:
        self._most = most
        self._random = Random() if random is None else random  # noqa: S311 (no secret)
        self._lock = Lock()
        self._kept: list[tuple[float, int, Mapping[str, object]]] = []
        """A heap of negative keys, the largest key first; the number decides between equals."""
        self._number = 0

    def offer(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Take rows into account."""
        draw = self._random.random
        with self._lock:
            kept = self._kept
            for row in rows:
                key = -draw()
                if len(kept) < self._most:
                    self._number += 1
                    heapq.heappush(kept, (key, self._number, row))
                elif key > kept[0][0]:
                    self._number += 1
                    heapq.heapreplace(kept, (key, self._number, row))

    def take(self) -> list[Keyed]:
        """Give the sample, and begin another."""
        with self._lock:
            kept, self._kept = self._kept, []
        return [(-key, row) for key, _, row in kept]


def merge(samples: Iterable[Iterable[Keyed]], most: int = MOST_ROWS) -> list[Mapping[str, object]]:
    """Make one sample of several of the same window."""
    everything = (keyed for sample in samples for keyed in sample)
    return [row for _, row in heapq.nsmallest(most, everything, key=lambda keyed: keyed[0])]
