"""The reference profile of tables of any size, in two passes that only count.

The first pass counts numbers by the upper half of their distance from the smallest one, as a
32-bit float: 65,536 bins whose width is at most 1/128 of that distance. Quantiles of these are the
edges. The second counts the bins between the edges. Both are sums of integers, so the profile is
the same for every cut and order of the rows, and edges are approximate while counts are exact.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
from modelops_runtime.profile import DEFAULT_BINS, MOST_BINS, FeatureProfile, Histogram, Profile
from modelops_runtime.schema import UNSEEN, Input, Schema
from numpy.typing import NDArray
from pyarrow import types

from modelops_training.errors import DataError
from modelops_training.inputs import text_of
from modelops_training.sources import Counts, Source, source

KEYS: Final = 1 << 16
_SIGN: Final = 1 << 15
_INFINITY: Final = 0x7F80
"""The key of what is too large for a 32-bit float; those above it are of no number."""


def profile_of(table: Any, schema: Schema, bins: int = DEFAULT_BINS) -> Profile:
    """Make the profile of a table that `sources.source` takes, without scores.

    Numbers get at most `bins` quantile bins besides the guards. Raises DataError for a column that
    is missing or not of its input's kind, or a table without rows.
    """
    if not 1 <= bins <= MOST_BINS:
        raise ValueError(f"{bins} bins: must be 1 to {MOST_BINS}")
    rows = source(table)
    numbers = [column for column in schema.inputs if column.kind == "number"]
    edges: dict[str, tuple[float, ...]] = {}
    if numbers:
        names = [column.name for column in numbers]
        keys = rows.total(partial(_keys, numbers), names, KEYS * len(numbers))
        for column, counts in zip(numbers, np.split(keys, len(numbers)), strict=True):
            edges[column.name] = _edges(column, counts, bins)
    return counted(rows, schema, [_bins(column, edges) for column in schema.inputs])


def counted(rows: Source, schema: Schema, features: Sequence[FeatureProfile]) -> Profile:
    """Count a table into the bins of these features, in the schema's order. Raises DataError."""
    lengths = [feature.bins + 2 for feature in features]
    kernel = partial(_counts, schema.inputs, features)
    total = rows.total(kernel, schema.names, sum(lengths))
    parts = np.split(total, np.cumsum(lengths)[:-1])
    filled = tuple(
        feature.filled(Histogram(tuple(part[:-2].tolist()), int(part[-2]), int(part[-1])))
        for feature, part in zip(features, parts, strict=True)
    )
    if not (count := filled[0].histogram.total):
        raise DataError("the table has no rows")
    return Profile(features=filled, rows=count)


def encoded(values: Any, column: Input) -> NDArray[np.float64]:
    """Turn an Arrow array into codes, as `inputs.encode` does with pandas. Raises DataError."""
    return _codes(values, column) if column.kind == "category" else _numbers(values, column)


def _numbers(values: Any, column: Input) -> NDArray[np.float64]:
    kind = values.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise DataError(f"column {column.name!r} holds {kind}, not numbers")
    try:
        floats = values.cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"column {column.name!r} holds integers beyond 2**53: an identifier? leave it out"
        ) from error
    numbers: NDArray[np.float64] = floats.to_numpy(zero_copy_only=False)
    return numbers


def _codes(values: Any, column: Input) -> NDArray[np.float64]:
    table = {level: float(code) for code, level in enumerate(column.levels)}
    coded = values if types.is_dictionary(values.type) else values.dictionary_encode()
    met = coded.dictionary.to_pylist()
    codes = [_code(value, table, column.name) for value in met]
    places = coded.indices.fill_null(len(met)).to_numpy(zero_copy_only=False)
    found: NDArray[np.float64] = np.array([*codes, np.nan])[places]
    return found


def _code(value: object, table: dict[str, float], name: str) -> float:
    missing = value is None or value != value  # noqa: PLR0124  # NaN among floats
    return np.nan if missing else table.get(text_of(value, name), UNSEEN)


# --- the kernels ---------------------------------------------------------------------------


def _counts(columns: Sequence[Input], features: Sequence[FeatureProfile], batch: Any) -> Counts:
    """Count a batch: for each feature its bins, then missing, then unseen values."""
    found = (
        feature.count(encoded(batch.column(column.name), column))
        for column, feature in zip(columns, features, strict=True)
    )
    return np.array(
        [count for each in found for count in (*each.counts, each.missing, each.unseen)], np.int64
    )


def _keys(columns: Sequence[Input], batch: Any) -> Counts:
    """Count a batch by key, `KEYS` for each column."""
    counts = []
    for column in columns:
        with np.errstate(over="ignore", invalid="ignore"):
            far = encoded(batch.column(column.name), column) - (column.minimum or 0.0)
            upper = far.astype("<f4").view("<u2")[1::2]
        counts.append(np.bincount(upper, minlength=KEYS))
    return np.concatenate(counts)


# --- the edges -----------------------------------------------------------------------------


def _bins(column: Input, edges: dict[str, tuple[float, ...]]) -> FeatureProfile:
    """Make a feature without counts."""
    if column.kind == "category":
        counts = (0,) * min(len(column.levels), MOST_BINS)
        return FeatureProfile(
            name=column.name, kind="category", levels=column.levels, counts=counts
        )
    own = edges[column.name]
    return FeatureProfile(name=column.name, kind="number", edges=own, counts=(0,) * (len(own) + 1))


def _edges(column: Input, counts: Counts, bins: int) -> tuple[float, ...]:
    """Take quantiles of what was counted by key; the outer edges hold all values between them."""
    # In the order of the numbers: the larger a negative one's key, the smaller it is.
    keys = np.concatenate([np.arange(_SIGN + _INFINITY, _SIGN - 1, -1), np.arange(_INFINITY + 1)])
    sums = counts[keys].cumsum()
    if not (known := sums[-1]):
        return (0.0, 0.0)  # as `Profile.fit` has it where all values are missing
    ranks = np.floor(np.linspace(0, 1, bins + 1) * (known - 1))
    places = np.searchsorted(sums, ranks, side="right")
    low, high = _bounds(keys[places])
    if column.integer:
        low, high = np.ceil(low), np.ceil(high) - 1
    edges = np.append(low[:-1], high[-1]) + (column.minimum or 0.0)
    limit = np.finfo(np.float64).max
    found = tuple(float(edge) for edge in np.unique(np.clip(edges, -limit, limit)))
    return found if len(found) > 1 else found * 2


def _bounds(keys: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the smallest number of each key, and one that is larger than all, rounding included."""
    near = (keys << 16).astype("<u4").view("<f4")
    far = ((keys << 16) + 0xFFFF).astype("<u4").view("<f4")
    far = np.where(np.isnan(far), near, far)  # infinity has its key for itself
    smallest, largest = np.minimum(near, far), np.maximum(near, far)
    with np.errstate(over="ignore"):
        # What was rounded up to the smallest is itself smaller; nothing is rounded to 0.
        low = np.where(smallest == 0, 0, np.nextafter(smallest, np.float32(-np.inf)))
        high = np.nextafter(largest, np.float32(np.inf))
    return low.astype(np.float64), high.astype(np.float64)
