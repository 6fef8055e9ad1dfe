"""The reference profile: how each input was distributed when the model was trained.

Live rows are counted into the same bins, so that two integer histograms can be compared, and the
histograms of several pods and windows add up. Numbers have quantile bins with a guard bin on
either side, for what training never saw; categories have a bin for each level.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from modelops_runtime.schema import Input, Kind, Matrix, Output, Schema

Column = NDArray[np.float64]

MOST_BINS: Final = 200
"""A line of telemetry has to hold all bins of a feature."""
DEFAULT_BINS: Final = 20
PRIOR: Final = 0.5
"""Jeffreys' pseudo-count for each bin, so that an empty bin has a share."""


class ProfileError(ValueError):
    """A profile.json that is not one, or rows that do not fit the profile."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often each bin was met; histograms over the same bins add up."""

    counts: tuple[int, ...]
    missing: int = 0
    unseen: int = 0
    """Categories without a level."""

    @property
    def total(self) -> int:
        """Number of values."""
        return sum(self.counts) + self.missing + self.unseen

    def __add__(self, other: "Histogram") -> "Histogram":
        if len(self.counts) != len(other.counts):
            raise ValueError(f"{len(self.counts)} bins do not add to {len(other.counts)}")
        return Histogram(
            tuple(one + more for one, more in zip(self.counts, other.counts, strict=True)),
            self.missing + other.missing,
            self.unseen + other.unseen,
        )


@dataclass(frozen=True, kw_only=True)
class FeatureProfile:
    """The reference histogram of one input, or of the predictions' scores or labels.

    A number with the edges e0 < ... < ek has k + 2 bins: 0 is below e0, i is [e(i-1), e(i)) with
    the last one closed, k + 1 is above ek. A constant c has the edges (c, c). A category's bin i
    is level i; beyond `MOST_BINS` levels, bin i holds all levels whose code is i modulo that.
    """

    name: str
    kind: Kind
    edges: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    missing: int = 0
    unseen: int = 0
    variation: float | None = None
    """How far hours, weekdays and stretches of time of the reference are from the rest of it: the
    PSI of the furthest, less what chance explains. None if nobody told the rows' times."""

    def __post_init__(self) -> None:
        if self.kind not in {"number", "category"}:
            raise ProfileError(f"{self.name}: kind {self.kind!r} is not number or category")
        if self.kind == "number" and (
            len(self.edges) < 2 or list(self.edges) != sorted(self.edges)
        ):
            raise ProfileError(f"{self.name}: edges must be at least two, in order")
        if len(self.counts) != self.bins:
            raise ProfileError(f"{self.name}: {len(self.counts)} counts for {self.bins} bins")

    @property
    def bins(self) -> int:
        """Number of bins, missing and unseen not counted."""
        return len(self.edges) + 1 if self.kind == "number" else min(len(self.levels), MOST_BINS)

    @cached_property
    def _edges(self) -> Column:
        return np.array(self.edges, dtype=np.float64)

    def place(self, values: Column) -> NDArray[np.int64]:
        """Give each value's bin; `bins` for missing values and `bins + 1` for unseen categories."""
        missing = np.isnan(values)
        if self.kind == "number":
            places = np.searchsorted(self._edges, values, side="right")
            places[values == self._edges[-1]] = len(self.edges) - 1
        else:
            known = (values >= 0) & (values < len(self.levels))
            codes = np.where(known, values, 0).astype(np.int64) % max(self.bins, 1)
            places = np.where(known, codes, self.bins + 1)
        places[missing] = self.bins
        return places.astype(np.int64, copy=False)

    def count(self, values: Column) -> Histogram:
        """Count a column of encoded values."""
        if self.kind == "number":
            return self._compared(values)
        found = np.bincount(self.place(values), minlength=self.bins + 2).tolist()
        return Histogram(tuple(found[: self.bins]), found[self.bins], found[self.bins + 1])

    def tally(self, labels: Iterable[object]) -> Histogram:
        """Count predicted labels, which are levels as text."""
        try:
            found = Counter(labels)
        except TypeError:  # a model of others may give lists
            found = Counter(map(str, labels))
        places = {level: place for place, level in enumerate(self.levels)}
        codes = [places.get(str(label), -1) for label in found]
        counts = np.zeros(self.bins + 2, dtype=np.int64)
        np.add.at(counts, self.place(np.array(codes, dtype=np.float64)), list(found.values()))
        *known, missing, unseen = counts.tolist()
        return Histogram(tuple(known), missing, unseen)

    def _compared(self, values: Column) -> Histogram:
        """Count numbers as `place` places them, in an eighth of its time for long columns."""
        *inner, last = self.edges
        # Nothing is smaller than NaN, equal to it or larger.
        below = [int(np.count_nonzero(values < edge)) for edge in inner]
        missing = int(np.count_nonzero(np.isnan(values)))
        sums = [0, *below, int(np.count_nonzero(values <= last)), len(values) - missing]
        return Histogram(tuple(upper - lower for lower, upper in pairwise(sums)), missing)

    @property
    def histogram(self) -> Histogram:
        """The reference's counts."""
        return Histogram(self.counts, self.missing, self.unseen)

    def filled(self, found: Histogram) -> "FeatureProfile":
        """Take these counts as the reference's."""
        return replace(self, counts=found.counts, missing=found.missing, unseen=found.unseen)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The reference histograms of all inputs, in the schema's order."""

    features: tuple[FeatureProfile, ...]
    rows: int
    """Number of rows that the reference was made of."""
    scores: FeatureProfile | None = None
    """The predictions: the probability of the second class (of the likeliest, if there are more
    than two), or a regressor's value."""
    labels: FeatureProfile | None = None
    """The classes that are predicted; None for a regressor."""

    @classmethod
    def fit(
        cls,
        matrix: Matrix,
        schema: Schema,
        bins: int = DEFAULT_BINS,
        *,
        scores: Column | None = None,
        labels: NDArray[np.int64] | None = None,
    ) -> Self:
        """Make a profile of encoded rows of shape (rows, inputs) and what is predicted of them.

        Scores and labels have the shape (rows,); labels are indices of the schema's classes.
        Numbers get at most `bins` quantile bins besides the guards: fewer where quantiles fall
        together. Raises ValueError when the shapes do not fit or there are no rows.
        """
        if matrix.ndim != 2 or matrix.shape[1] != len(schema.inputs) or not len(matrix):
            raise ValueError(f"shape {matrix.shape} is not (rows, {len(schema.inputs)})")
        if not 1 <= bins <= MOST_BINS:
            raise ValueError(f"{bins} bins: must be 1 to {MOST_BINS}")
        features = (
            _fitted(column, matrix[:, index], bins) for index, column in enumerate(schema.inputs)
        )
        name = Input(name=schema.output.name, kind="number")
        return cls(
            features=tuple(features),
            rows=len(matrix),
            scores=None if scores is None else _fitted(name, np.asarray(scores, float), bins),
            labels=None if labels is None else _labelled(schema.output, labels),
        )

    def count(self, matrix: Matrix) -> list[Histogram]:
        """Count encoded rows of shape (rows, features): one histogram for each feature."""
        if matrix.ndim != 2 or matrix.shape[1] != len(self.features):
            raise ProfileError(f"shape {matrix.shape} is not (rows, {len(self.features)})")
        return [each.count(matrix[:, index]) for index, each in enumerate(self.features)]

    def place(self, matrix: Matrix) -> NDArray[np.int64]:
        """Give the bins of encoded rows, of the same shape; see `FeatureProfile.place`."""
        columns = [each.place(matrix[:, index]) for index, each in enumerate(self.features)]
        return np.stack(columns, axis=1)

    def __hash__(self) -> int:
        return hash(self.edges_hash)

    @cached_property
    def edges_hash(self) -> str:
        """Name the bins: histograms with the same hash may be added. 16 hexadecimal digits."""
        features: Sequence[FeatureProfile] = self.features
        content = [[each.name, each.kind, each.edges, each.levels] for each in features]
        if self.scores is not None:
            content.append([self.scores.name, self.scores.edges])
        if self.labels is not None:
            content.append([self.labels.name, self.labels.levels])
        return sha256(orjson.dumps(content)).hexdigest()[:16]

    def to_json(self) -> bytes:
        """Write profile.json: the same profile always gives the same bytes."""
        return orjson.dumps(
            {
                "rows": self.rows,
                "edges_hash": self.edges_hash,
                "features": [_described(each) for each in self.features],
                "scores": None if self.scores is None else _described(self.scores),
                **({} if self.labels is None else {"labels": _described(self.labels)}),
                **self._variations(),
            },
            option=orjson.OPT_INDENT_2,
        )

    def _variations(self) -> Mapping[str, object]:
        """Tell them apart from the features, where those who do not know them do not stumble."""
        features = [each.variation for each in self.features]
        beside = {
            name: None if each is None else each.variation
            for name, each in (("scores", self.scores), ("labels", self.labels))
        }
        known = any(each is not None for each in [*features, *beside.values()])
        return {"variations": {"features": features, **beside}} if known else {}

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read profile.json. Raises ProfileError."""
        try:
            data = orjson.loads(content)
            told = data.get("variations") or {}
            features = data["features"]
            variations = told.get("features") or [None] * len(features)
            profile = cls(
                features=tuple(
                    _read(each, known) for each, known in zip(features, variations, strict=True)
                ),
                rows=int(data["rows"]),
                scores=_read_beside(data, told, "scores"),
                labels=_read_beside(data, told, "labels"),
            )
            stated = data["edges_hash"]
        except ProfileError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProfileError(f"not a reference profile: {error!r}") from error
        if stated != profile.edges_hash:
            raise ProfileError(f"edges_hash is {stated}, the edges give {profile.edges_hash}")
        return profile


def _fitted(column: Input, values: Column, bins: int) -> FeatureProfile:
    if column.kind == "category":
        empty = (0,) * min(len(column.levels), MOST_BINS)
        feature = FeatureProfile(
            name=column.name, kind="category", levels=column.levels, counts=empty
        )
    else:
        edges = _edges(values, bins)
        feature = FeatureProfile(
            name=column.name, kind="number", edges=edges, counts=(0,) * (len(edges) + 1)
        )
    return feature.filled(feature.count(values))


def _labelled(output: Output, labels: NDArray[np.int64]) -> FeatureProfile:
    levels = tuple(str(label) for label in output.classes or ())
    column = Input(name=output.name, kind="category", levels=levels)
    return _fitted(column, labels.astype(np.float64), MOST_BINS)


def _edges(values: Column, bins: int) -> tuple[float, ...]:
    known = values[~np.isnan(values)]
    if not len(known):
        # Everything is missing in the reference: whatever comes falls into a guard bin, or on 0.
        return (0.0, 0.0)
    # Quantiles that are values of the data: interpolated ones overflow between the largest floats.
    found = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1), method="lower"))
    edges = tuple(float(edge) for edge in found)
    return edges if len(edges) > 1 else edges * 2


def _described(feature: FeatureProfile) -> dict[str, object]:
    bins = {"edges": feature.edges} if feature.kind == "number" else {"levels": feature.levels}
    return {
        "name": feature.name,
        "kind": feature.kind,
        **bins,
        "counts": feature.counts,
        "missing": feature.missing,
        "unseen": feature.unseen,
    }


def _read(data: Mapping[str, Any], variation: float | None) -> FeatureProfile:
    lists = {key: tuple(data.get(key, ())) for key in ("edges", "levels", "counts")}
    known = None if variation is None else float(variation)
    return FeatureProfile(**{**data, **lists}, variation=known)


def _read_beside(
    data: Mapping[str, Any], variations: Mapping[str, Any], name: str
) -> FeatureProfile | None:
    return None if data.get(name) is None else _read(data[name], variations.get(name))


def psi(reference: NDArray[np.int64], live: NDArray[np.int64]) -> float:
    """Give the population stability index of two histograms over the same bins, shape (bins,).

    The sum of (live - reference) ln(live / reference) over the shares of all bins that either has
    met, each with half a row more: Jeffreys' prior. Not corrected for the number of rows.
    """
    met = (reference + live) > 0
    before, now = reference[met] + PRIOR, live[met] + PRIOR
    before, now = before / before.sum(), now / now.sum()
    return float(((now - before) * np.log(now / before)).sum())
