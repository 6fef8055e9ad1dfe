"""All histograms of a window in the bytes of the smallest integers that hold them.

Thousands of deployments keep ten windows each: 30 features of 23 bins take 0.7 KB where no bin has
256 rows, 1.4 KB where none has 65,536, and else 2.8 KB, instead of 9.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Final, Self
from weakref import WeakValueDictionary

import numpy as np

from modelops_operator.core.health.statistics import Counts

Key = tuple[str, int]
"""The hash of the edges that were counted against, and the index of the feature, or `SCORES`, or
`LABELS`."""
Places = tuple[tuple[Key, int], ...]
"""Keys, each with its number of bins."""


class _Layout(dict[Key, slice]):
    """Where each histogram is; there is one object for all windows of a model."""

    @cached_property
    def sizes(self) -> Mapping[Key, int]:
        """The number of bins of each histogram."""
        return {key: place.stop - place.start for key, place in self.items()}

    @cached_property
    def _indices(self) -> dict[tuple[Places, int], Counts]:
        return {}

    def index(self, places: Places, width: int) -> Counts:
        """Say where in the packed counts each cell of `rows` is; -1, behind their end: a zero."""
        index = self._indices.get((places, width))
        if index is None:
            index = np.full((len(places), width), -1)
            for row, (key, size) in zip(index, places, strict=True):
                place = self.get(key, slice(0, 0))
                if place.stop - place.start == size:
                    row[:size] = np.arange(place.start, place.stop)
            self._indices.clear()
            self._indices[places, width] = index
        return index


class Histograms(Mapping[Key, Counts]):
    """Counts of the bins, then of missing values, then of unseen categories, by key."""

    __slots__ = ("_bytes", "_kind", "_layout")

    def __init__(self, histograms: Mapping[Key, Counts]) -> None:
        self._layout = _layout(tuple((key, len(counts)) for key, counts in histograms.items()))
        self._pack(np.concatenate(list(histograms.values())) if histograms else _NONE)

    @classmethod
    def of(cls, places: Places, counts: Sequence[int]) -> Self:
        """Make them of the counts of all keys in a row."""
        return cls._of(_layout(places), np.array(counts, dtype=np.int64))

    @classmethod
    def _of(cls, layout: _Layout, counts: Counts) -> Self:
        made = cls.__new__(cls)
        made._layout = layout  # noqa: SLF001 (one of its own)
        made._pack(counts)  # noqa: SLF001 (one of its own)
        return made

    def __getitem__(self, key: Key) -> Counts:
        return self._counts[self._layout[key]].astype(np.int64)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)

    def __repr__(self) -> str:
        return f"Histograms({dict(self)})"

    def __add__(self, other: "Histograms") -> "Histograms":
        """Add two sets. Where the numbers of bins differ, the first is kept."""
        if not (self._layout and other._layout):
            return self if self._layout else other
        if self._layout is not other._layout:
            added = {**other, **self}
            for key in self.keys() & other.keys():
                if len(self[key]) == len(other[key]):
                    added[key] = self[key] + other[key]
            return Histograms(added)
        return self._of(self._layout, self._counts.astype(np.int64) + other._counts)

    @property
    def sizes(self) -> Mapping[Key, int]:
        """The number of bins of each."""
        return self._layout.sizes

    def rows(self, places: Places, width: int) -> Counts:
        """Lay histograms out as rows, filled up with zeros to `width` bins.

        The row of one that is not there, or has another number of bins, is all zeros.
        """
        counts = np.append(self._counts, 0)[self._layout.index(places, width)]
        return counts.astype(np.int64)

    def _pack(self, counts: Counts) -> None:
        self._kind = np.min_scalar_type(counts.max(initial=0))
        self._bytes = counts.astype(self._kind).tobytes()  # an array would be 100 bytes more

    @property
    def _counts(self) -> Counts:
        return np.frombuffer(self._bytes, self._kind)


_NONE: Final = np.zeros(0, dtype=np.int64)


_LAYOUTS: Final[WeakValueDictionary[Places, _Layout]] = WeakValueDictionary()
"""Those in use: what a hostile pod makes up goes with it."""


def _layout(sizes: Places) -> _Layout:
    known = _LAYOUTS.get(sizes)
    if known is None:
        ends = accumulate((size for _, size in sizes), initial=0)
        places = zip(sizes, pairwise(ends), strict=True)
        known = _LAYOUTS[sizes] = _Layout({key: slice(*place) for (key, _), place in places})
    return known


def packed(histograms: Mapping[Key, Counts]) -> Histograms:
    """Pack histograms that are not packed yet."""
    return histograms if isinstance(histograms, Histograms) else Histograms(histograms)
