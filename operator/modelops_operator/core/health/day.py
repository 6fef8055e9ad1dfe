"""A day of traffic in sums of eight hours: the slow window, for drift that is small and lasts.

Each sum has all of a window's histograms or nothing, in one array of the smallest integers that
hold them: 30 features of 23 bins take 1.4 KB where no bin has 65,536 rows, and else 2.8 KB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import numpy as np

from modelops_operator.core.health.statistics import Counts

Key = tuple[str, int]
"""The hash of the edges that were counted against, and the index of the feature, or `SCORES`, or
`LABELS`."""
Histograms = Mapping[Key, Counts]
Layout = tuple[tuple[Key, int], ...]
"""Keys and numbers of bins, in the order of the counts."""

BLOCK: Final = timedelta(hours=8)
BLOCKS: Final = 3
"""So many make a day."""
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class _Packed:
    """Histograms in one array."""

    layout: Layout
    counts: Counts

    @classmethod
    def of(cls, histograms: Histograms) -> "_Packed":
        layout = tuple((key, len(histograms[key])) for key in sorted(histograms))
        counts = np.concatenate([histograms[key] for key, _ in layout])
        return cls(_shared(layout), counts.astype(np.min_scalar_type(counts.max())))

    def open(self) -> dict[Key, Counts]:
        ends = np.cumsum([size for _, size in self.layout])
        parts = np.split(self.counts.astype(np.int64), ends[:-1])
        return {key: part for (key, _), part in zip(self.layout, parts, strict=True)}


@lru_cache(maxsize=4096)
def _shared(layout: Layout) -> Layout:
    """Keep one of those that are the same, as all of a model's are."""
    return layout


class Day:
    """Sums of the last three blocks of eight hours and of the one that goes on."""

    def __init__(self) -> None:
        self._blocks: dict[datetime, _Packed] = {}
        """By their start, in UTC at 0, 8 and 16 o'clock."""

    def add(self, start: datetime, histograms: Histograms) -> None:
        """Count what happened in a window that began at that time."""
        known = {key: counts for key, counts in histograms.items() if len(counts)}
        if not known:
            return
        block = start - (start - _EPOCH) % BLOCK
        if block in self._blocks:
            known = added(self._blocks[block].open(), known)
        self._blocks[block] = _Packed.of(known)
        while len(self._blocks) > BLOCKS + 1:
            del self._blocks[min(self._blocks)]

    def sums(self, until: datetime) -> Mapping[datetime, Histograms]:
        """Give the sums of the day that ended last before `until`, by their start, in order.

        Empty unless it is known from its beginning; nothing of blocks without traffic.
        """
        if not self._blocks:
            return {}
        end = until - (until - _EPOCH) % BLOCK
        start = end - BLOCKS * BLOCK
        if min(self._blocks) > start:
            return {}
        return {
            block: self._blocks[block].open()
            for block in sorted(self._blocks)
            if start <= block < end
        }


def added(one: Histograms, other: Histograms) -> dict[Key, Counts]:
    """Add two sets of histograms. Where the numbers of bins differ, the first is kept."""
    added = {**other, **one}
    for key in one.keys() & other.keys():
        if len(one[key]) == len(other[key]):
            added[key] = one[key] + other[key]
    return added
